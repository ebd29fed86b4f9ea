// The content of regular files: data and holes, copies that share blocks where the file system can.
import CLinux
import Glibc
import LinuxKernel

/// Contents of regular files. Holes stay holes.
enum FileContent {
    /// The ranges of a file that hold data, in order, up to `size`.
    static func extents(_ file: FileDescriptor, size: UInt64) -> [Range<UInt64>] {
        var extents: [Range<UInt64>] = []
        var offset: UInt64 = 0
        while offset < size {
            let data = clx_lseek(file.number, Int64(offset), clx_SEEK_DATA)
            if data == Int64(-ENXIO) { return extents }
            // A file system that does not know holes: all is data.
            if data < 0 { return extents + [offset..<size] }
            let hole = clx_lseek(file.number, data, clx_SEEK_HOLE)
            let end = hole < 0 ? size : min(UInt64(hole), size)
            if UInt64(data) >= end { return extents }
            extents.append(UInt64(data)..<end)
            offset = end
        }
        return extents
    }

    /// Copies a whole file into an empty one: shared blocks if the file system has them, else data by the kernel.
    static func copy(_ from: FileDescriptor, to: FileDescriptor, name: String) throws(KernelError) {
        if clx_ficlone(to.number, from.number) == 0 { return }
        var status = stat()
        try checkC(fstat(from.number, &status), "examining \(name)")
        let size = UInt64(status.st_size)
        for extent in extents(from, size: size) {
            var offset = extent.lowerBound
            while offset < extent.upperBound {
                let n = clx_copy_file_range(
                    from.number, offset, to.number, offset, Int(min(extent.upperBound - offset, 1 << 30)))
                if n == -Int(EXDEV) || n == -Int(EINVAL) || n == -Int(EOPNOTSUPP) || n == -Int(ENOSYS) {
                    try copyByHand(from, to, offset..<extent.upperBound, name)
                    break
                }
                if try check(n, "copying \(name)") == 0 { break }
                offset += UInt64(n)
            }
        }
        try checkC(ftruncate(to.number, status.st_size), "setting the size of a copy of \(name)")
    }

    private static func copyByHand(
        _ from: FileDescriptor, _ to: FileDescriptor, _ range: Range<UInt64>, _ name: String
    ) throws(KernelError) {
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        var offset = range.lowerBound
        while offset < range.upperBound {
            let wanted = min(Int(range.upperBound - offset), buffer.count)
            let count = try check(clx_pread(from.number, &buffer, wanted, offset), "reading \(name)")
            if count == 0 { return }
            try write(buffer[..<count], to, at: offset, name: name)
            offset += UInt64(count)
        }
    }

    /// Writes all of `bytes` at `offset`.
    static func write(
        _ bytes: ArraySlice<UInt8>, _ file: FileDescriptor, at offset: UInt64, name: @autoclosure () -> String
    ) throws(KernelError) {
        var written = 0
        while written < bytes.count {
            let n = bytes.withUnsafeBytes {
                clx_pwrite(file.number, $0.baseAddress! + written, $0.count - written, offset + UInt64(written))
            }
            if n == -Int(EINTR) { continue }
            written += try check(n, "writing \(name())")
        }
    }

    /// SHA-256 of the content, holes as zeros.
    static func digest(of file: FileDescriptor, size: UInt64, name: @autoclosure () -> String) throws(KernelError)
        -> Digest
    {
        var hasher = Digest.Hasher()
        var buffer = [UInt8](repeating: 0, count: Int(min(max(size, 1), 1 << 18)))
        var hashed: UInt64 = 0
        for extent in extents(file, size: size) {
            hasher.updateZeros(extent.lowerBound - hashed)
            hashed = extent.lowerBound
            while hashed < extent.upperBound {
                let wanted = min(Int(extent.upperBound - hashed), buffer.count)
                let count = try check(clx_pread(file.number, &buffer, wanted, hashed), "reading \(name())")
                if count == 0 { break }
                buffer.withUnsafeBytes { hasher.update(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
                hashed += UInt64(count)
            }
            if hashed < extent.upperBound { break }
        }
        // A file that was cut while it was read counts as zeros: it has changed, and will be looked at again.
        hasher.updateZeros(size - hashed)
        return hasher.finish()
    }
}

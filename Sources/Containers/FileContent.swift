// The content of regular files: data and holes, copies that share blocks where the file system can.
import CLinux
import Glibc
import LinuxKernel

/// Contents of regular files. Holes stay holes.
enum FileContent {
    /// The parts of a range of a file that hold data, in order. Asked once for a long range: a tmpfs looks for the end
    /// of each part page by page, however far beyond the range that is.
    static func extents(_ file: FileDescriptor, in range: Range<UInt64>) -> [Range<UInt64>] {
        var extents: [Range<UInt64>] = []
        var offset = range.lowerBound
        while offset < range.upperBound {
            let data = clx_lseek(file.number, Int64(offset), clx_SEEK_DATA)
            if data == Int64(-ENXIO) { return extents }
            // A file system that does not know holes: all is data.
            if data < 0 { return extents + [offset..<range.upperBound] }
            let hole = clx_lseek(file.number, data, clx_SEEK_HOLE)
            let end = hole < 0 ? range.upperBound : min(UInt64(hole), range.upperBound)
            if UInt64(data) >= end { return extents }
            extents.append(UInt64(data)..<end)
            offset = end
        }
        return extents
    }

    /// Copies a whole file into an empty one: shared blocks if the file system has them, else data by the kernel.
    static func copy(
        _ from: FileDescriptor, to: FileDescriptor, name: String, whileWorking: () throws -> Void = {}
    ) throws {
        if clx_ficlone(to.number, from.number) == 0 { return }
        var status = stat()
        try checkC(fstat(from.number, &status), "examining \(name)")
        let size = UInt64(status.st_size)
        for extent in extents(from, in: 0..<size) {
            var offset = extent.lowerBound
            while offset < extent.upperBound {
                try whileWorking()
                let n = clx_copy_file_range(
                    from.number, offset, to.number, offset, Int(min(extent.upperBound - offset, 1 << 24)))
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

    /// The digest of the content (`ContentHasher`), and its blocks' if it is large. Only data is read, not holes. A
    /// file that is cut while it is read counts as zeros there: it has changed, and will be looked at again.
    static func digest(
        of file: FileDescriptor, size: UInt64, name: @autoclosure () -> String, whileWorking: () throws -> Void = {}
    ) throws -> (Digest, BlockDigests?) {
        let keepsBlocks = size >= BlockDigests.smallestFile
        var hasher = ContentHasher(keepingBlocks: keepsBlocks)
        try read(file, 0..<size, name: name(), whileWorking: whileWorking) { hasher.update($0, at: $1) }
        let (digest, blocks) = hasher.finish(size: size)
        return (digest, keepsBlocks ? blocks : nil)
    }

    /// Reads the data in a range of a file, in order, up to `length` bytes at a time.
    static func read(
        _ file: FileDescriptor, _ range: Range<UInt64>, atMost length: UInt64 = 1 << 18,
        name: @autoclosure () -> String,
        whileWorking: () throws -> Void, _ body: (UnsafeRawBufferPointer, _ offset: UInt64) throws -> Void
    ) throws {
        if range.isEmpty { return }
        try read(
            file, extents: extents(file, in: range), atMost: min(UInt64(range.count), length), name: name(),
            whileWorking: whileWorking, body)
    }

    /// Reads these parts of a file, in order, up to `length` bytes at a time.
    static func read(
        _ file: FileDescriptor, extents: [Range<UInt64>], atMost length: UInt64, name: @autoclosure () -> String,
        whileWorking: () throws -> Void, _ body: (UnsafeRawBufferPointer, _ offset: UInt64) throws -> Void
    ) throws {
        var buffer = [UInt8](repeating: 0, count: Int(length))
        for extent in extents {
            var offset = extent.lowerBound
            while offset < extent.upperBound {
                try whileWorking()
                let wanted = min(Int(extent.upperBound - offset), buffer.count)
                let count = try check(clx_pread(file.number, &buffer, wanted, offset), "reading \(name())")
                if count == 0 { return }
                try buffer.withUnsafeBytes { try body(UnsafeRawBufferPointer(rebasing: $0[..<count]), offset) }
                offset += UInt64(count)
            }
        }
    }
}

// An owned file descriptor: closed when the last reference goes.
import CLinux
import Glibc

/// An open file descriptor that this object owns.
public final class FileDescriptor: Sendable {
    /// The number, valid as long as this object lives.
    public let number: Int32

    /// Takes over an open descriptor.
    public init(owning number: Int32) { self.number = number }
    deinit { close(number) }

    /// open(2) with O_CLOEXEC.
    public convenience init(opening path: String, _ flags: Int32, mode: mode_t = 0o600) throws(KernelError) {
        self.init(owning: try checkC(open(path, flags | O_CLOEXEC, mode), "opening \(path)"))
    }

    /// Reads up to `count` bytes at `offset` (pread(2)); fewer at the end of the file.
    public func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(KernelError) -> Int {
        try check(clx_pread(number, buffer.baseAddress, buffer.count, offset), "reading descriptor \(number)")
    }

    /// Writes the whole buffer (write(2), repeated).
    public func write(_ buffer: UnsafeRawBufferPointer) throws(KernelError) {
        var rest = buffer
        while !rest.isEmpty {
            let n = Glibc.write(number, rest.baseAddress, rest.count)
            if n < 0 && Glibc.errno == EINTR { continue }
            try checkC(n, "writing descriptor \(number)")
            rest = UnsafeRawBufferPointer(rebasing: rest[n...])
        }
    }
}

/// Whole small files, as /proc and /sys have them.
public enum SmallFile {
    /// The content of a file whose size stat(2) does not tell.
    public static func read(_ path: String) throws(KernelError) -> [UInt8] {
        let file = try FileDescriptor(opening: path, O_RDONLY)
        // SAFETY: owned here and freed once; of its bytes only the first `count`, which read(2) has filled, are looked
        // at.
        var buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: 16)
        defer { buffer.deallocate() }
        var count = 0
        while true {
            if count == buffer.count {
                let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: 4 * count, alignment: 16)
                larger.copyMemory(from: UnsafeRawBufferPointer(buffer))
                buffer.deallocate()
                buffer = larger
            }
            let n = Glibc.read(file.number, buffer.baseAddress! + count, buffer.count - count)
            if n < 0 && Glibc.errno == EINTR { continue }
            if try checkC(n, "reading \(path)") == 0 { return Array(buffer[..<count]) }
            count += n
        }
    }

    /// The content as text, without the last line's end.
    public static func text(_ path: String) throws(KernelError) -> String {
        var bytes = try read(path)
        if bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Writes a file in one write(2), as control files want it; the file must exist.
    public static func write(_ text: String, to path: String) throws(KernelError) {
        let file = try FileDescriptor(opening: path, O_WRONLY)
        let bytes = Array(text.utf8)
        try checkC(Glibc.write(file.number, bytes, bytes.count), "writing \(path)")
    }
}

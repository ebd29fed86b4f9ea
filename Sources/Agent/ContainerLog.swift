// A container's output, read in pieces.
import Glibc
import LinuxKernel

/// The log of a container, open: it can be read on while the container is moved away or removed.
struct ContainerLog: Sendable {
    /// Nil: the container has not written anything.
    private let file: FileDescriptor?
    /// Where it ended when it was opened. A program that goes on writing does not make an answer endless.
    private let end: UInt64

    init(path: String) throws(KernelError) {
        guard access(path, F_OK) == 0 else {
            (file, end) = (nil, 0)
            return
        }
        let file = try FileDescriptor(opening: path, O_RDONLY)
        end = UInt64(try checkC(lseek(file.number, 0, SEEK_END), "asking for the size of \(path)"))
        self.file = file
    }

    /// At most 256 KiB from an offset on; empty at the end.
    func piece(from offset: UInt64) throws -> [UInt8] {
        guard let file, offset < end else { return [] }
        var bytes = [UInt8](repeating: 0, count: Int(min(end - offset, 256 << 10)))
        let count = try bytes.withUnsafeMutableBytes { try file.read(at: offset, into: $0) }
        bytes.removeSubrange(count...)
        return bytes
    }
}

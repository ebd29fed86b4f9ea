// Unix sockets for one request and one answer each.
import FoundationEssentials
import Glibc
import LinuxKernel

enum LocalSocket {
    static func connect(to path: String) throws -> FileDescriptor {
        let descriptor = try make()
        try withAddress(path) { try checkC(Glibc.connect(descriptor.number, $0, $1), "connecting to \(path)") }
        return descriptor
    }

    /// A listening socket; a file of that name is in the way.
    static func listen(at path: String) throws -> FileDescriptor {
        let descriptor = try make()
        try withAddress(path) { try checkC(bind(descriptor.number, $0, $1), "binding a socket to \(path)") }
        try checkC(Glibc.listen(descriptor.number, 16), "listening at \(path)")
        return descriptor
    }

    /// Sends all, and says that it was all.
    static func send(_ data: Data, to descriptor: FileDescriptor) throws {
        var rest = Array(data)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes {
                Glibc.send(descriptor.number, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count < 0 && errno == EINTR { continue }
            rest = rest.dropFirst(try checkC(count, "writing to a socket"))
        }
        try checkC(shutdown(descriptor.number, Int32(SHUT_WR)), "ending a message")
    }

    /// Everything that the other side sends, at most 16 MiB; a side that is silent for 5 s has failed.
    static func receive(from descriptor: FileDescriptor) throws -> Data {
        var (result, buffer) = (Data(), [UInt8](repeating: 0, count: 65536))
        while true {
            let count = recv(descriptor.number, &buffer, buffer.count, 0)
            if count < 0 && errno == EINTR { continue }
            if try checkC(count, "reading from a socket") == 0 { return result }
            result.append(contentsOf: buffer[..<count])
            guard result.count < 16 << 20 else { throw TestbedError("a message of more than 16 MiB") }
        }
    }

    private static func make() throws -> FileDescriptor {
        let descriptor = FileDescriptor(
            owning: try checkC(socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | O_CLOEXEC, 0), "making a socket"))
        limit(descriptor)
        return descriptor
    }

    /// Neither side waits for ever for the other.
    static func limit(_ descriptor: FileDescriptor) {
        var time = timeval(tv_sec: 5, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor.number, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    private static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) throws -> Void) throws
    {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw TestbedError("\(path) is too long for a socket's name")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        // SAFETY: sockaddr_un is one of the layouts that a sockaddr pointer with its length may name.
        try withUnsafePointer(to: &address) {
            try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                try body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}

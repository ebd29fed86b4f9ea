// One TCP connection of a client. The thread that opens it decides in which network namespace it lives.
import Glibc
import LinuxKernel

/// A connection; every call is to be made by one thread at a time. What arrives goes to `received`, which each
/// protocol overrides.
class ClientConnection {
    let descriptor: FileDescriptor
    private var chunk = [UInt8](repeating: 0, count: 1 << 16)
    /// Bytes to be sent.
    var output: [UInt8] = []

    /// Connects, with TCP_NODELAY. Reads and writes that make no progress for `timeout` seconds fail.
    ///
    /// - Parameter service: for errors: "redis".
    init(_ service: String, address: String, port: UInt16, timeout: Double) throws {
        descriptor = FileDescriptor(
            owning: try checkC(socket(AF_INET, Int32(SOCK_STREAM.rawValue) | O_CLOEXEC, 0), "opening a socket"))
        var limit = timeval(tv_sec: Int(timeout), tv_usec: Int((timeout - timeout.rounded(.down)) * 1e6))
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor.number, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        var on: Int32 = 1
        try checkC(
            setsockopt(descriptor.number, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4), "setting TCP_NODELAY")
        var peer = try SocketAddress.ipv4(address, port: port)
        let what = "connecting to \(service) at \(address):\(port)"
        _ = try SocketAddress.with(&peer) { try checkC(connect(descriptor.number, $0, $1), what) }
    }

    /// Why a connection ended.
    struct Closed: Error, CustomStringConvertible {
        let description: String
    }

    /// Takes a piece of the stream.
    func received(_ piece: UnsafeRawBufferPointer) {}

    /// Sends what is in `output`; in non-blocking mode as much as fits.
    func flush(blocking: Bool) throws {
        var sent = 0
        defer { output.removeFirst(sent) }
        while sent < output.count {
            let n = output.withUnsafeBytes {
                send(
                    descriptor.number, $0.baseAddress! + sent, $0.count - sent,
                    Int32(MSG_NOSIGNAL) | (blocking ? 0 : Int32(MSG_DONTWAIT)))
            }
            if n < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN && !blocking { return }
                throw Closed(description: "sending: \(Errno(errno))")
            }
            sent += n
        }
    }

    /// Reads what is there (blocking: waits for something).
    func fill(blocking: Bool) throws {
        while true {
            let n = recv(descriptor.number, &chunk, chunk.count, blocking ? 0 : Int32(MSG_DONTWAIT))
            if n == 0 { throw Closed(description: "the server closed the connection") }
            if n < 0 {
                if errno == EINTR { continue }
                if errno == EAGAIN && !blocking { return }
                throw Closed(description: "receiving: \(Errno(errno))")
            }
            chunk.withUnsafeBytes { received(UnsafeRawBufferPointer(rebasing: $0[..<n])) }
            if blocking || n < chunk.count { return }
        }
    }

    var tcp: TCPInfo? { TCPInfo(of: descriptor.number) }
}

// One TCP connection to a redis server. The thread that opens it decides in which network namespace it lives.
import Glibc
import LinuxKernel

/// Where a redis server is, and from where it is asked.
public struct RedisEndpoint: Sendable {
    public var address: String
    public var port: UInt16
    /// The client's network namespace; nil: this process's own.
    public var namespace: NamedNetwork?

    public init(address: String, port: UInt16 = 6379, namespace: NamedNetwork? = nil) {
        self.address = address
        self.port = port
        self.namespace = namespace
    }

    /// Runs a closure where connections to this endpoint are opened: on a thread of its own inside the namespace.
    func run<T>(_ body: () throws -> T) throws -> T {
        guard let namespace else { return try OwnThread.run("redis-client", body).get() }
        return try namespace.run(body)
    }

    /// Waits until the server answers PING.
    public func waitUntilReady(seconds: Double) throws {
        try run {
            var last: any Error = TestbedError("no time")
            let ready = waitUntil(seconds: seconds, interval: 10) {
                do {
                    let connection = try RedisConnection(self, timeout: 1)
                    return try connection.call("PING") == .simple("PONG")
                } catch {
                    last = error
                    return false
                }
            }
            if !ready { throw TestbedError("redis at \(address):\(port) did not answer in \(seconds) s: \(last)") }
        }
    }
}

/// A connection; every call is to be made by one thread at a time.
final class RedisConnection {
    let descriptor: FileDescriptor
    private let endpoint: RedisEndpoint
    private var reader = RESPReader()
    private var chunk = [UInt8](repeating: 0, count: 1 << 16)
    /// Bytes to be sent.
    var output: [UInt8] = []

    /// Connects, with TCP_NODELAY. Reads and writes that make no progress for `timeout` seconds fail.
    init(_ endpoint: RedisEndpoint, timeout: Double) throws {
        self.endpoint = endpoint
        descriptor = FileDescriptor(
            owning: try checkC(socket(AF_INET, Int32(SOCK_STREAM.rawValue) | O_CLOEXEC, 0), "opening a socket"))
        var limit = timeval(tv_sec: Int(timeout), tv_usec: Int((timeout - timeout.rounded(.down)) * 1e6))
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor.number, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        var on: Int32 = 1
        try checkC(
            setsockopt(descriptor.number, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4), "setting TCP_NODELAY")
        var peer = try SocketAddress.ipv4(endpoint.address, port: endpoint.port)
        let what = "connecting to redis at \(endpoint.address):\(endpoint.port)"
        _ = try SocketAddress.with(&peer) { try checkC(connect(descriptor.number, $0, $1), what) }
    }

    /// Why a connection ended.
    struct Closed: Error, CustomStringConvertible {
        let description: String
    }

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
            chunk.withUnsafeBytes { reader.append(UnsafeRawBufferPointer(rebasing: $0[..<n])) }
            if blocking || n < chunk.count { return }
        }
    }

    /// A reply that has arrived whole, nil if there is none.
    func takeReply() throws -> RESPReply? { try reader.next() }

    /// Passes over a reply that has arrived whole (see `RESPReader.skip`).
    func skipReply() throws -> Bool? { try reader.skip() }

    /// Sends `output` and waits for a reply.
    func reply() throws -> RESPReply {
        try flush(blocking: true)
        while true {
            if let reply = try takeReply() { return reply }
            try fill(blocking: true)
        }
    }

    /// One command and its reply.
    func call(_ parts: String...) throws -> RESPReply {
        RESPCommand.append(parts.map { Array($0.utf8) }, to: &output)
        return try reply()
    }

    var tcp: TCPInfo? { TCPInfo(of: descriptor.number) }
}

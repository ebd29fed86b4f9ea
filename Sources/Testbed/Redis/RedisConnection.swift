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
final class RedisConnection: ClientConnection {
    private var reader = RESPReader()

    /// Connects. Reads and writes that make no progress for `timeout` seconds fail.
    init(_ endpoint: RedisEndpoint, timeout: Double) throws {
        try super.init("redis", address: endpoint.address, port: endpoint.port, timeout: timeout)
    }

    override func received(_ piece: UnsafeRawBufferPointer) { reader.append(piece) }

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
}

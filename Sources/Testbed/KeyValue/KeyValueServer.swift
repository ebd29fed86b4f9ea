// Key-value stores: where one is, how it is spoken to, and a connection to it.
import Glibc
import LinuxKernel

/// The protocol that a store speaks.
public enum KeyValueDialect: String, Sendable, Codable {
    /// RESP 2, with GET and SET.
    case redis
    /// memcached's text protocol, with get and set.
    case memcached

    var port: UInt16 {
        switch self {
        case .redis: 6379
        case .memcached: 11211
        }
    }
}

/// A store, and from where it is asked.
public struct KeyValueServer: Sendable {
    public var dialect: KeyValueDialect
    public var address: String
    public var port: UInt16
    /// The client's network namespace; nil: this process's own.
    public var namespace: NamedNetwork?

    public init(_ dialect: KeyValueDialect, address: String, port: UInt16? = nil, namespace: NamedNetwork? = nil) {
        (self.dialect, self.address, self.port) = (dialect, address, port ?? dialect.port)
        self.namespace = namespace
    }

    /// Runs a closure where connections to the store are opened: on a thread of its own inside the namespace.
    func run<T>(_ body: () throws -> T) throws -> T {
        guard let namespace else { return try OwnThread.run("kv-client", body).get() }
        return try namespace.run(body)
    }

    /// Waits until the store answers a read.
    public func waitUntilReady(seconds: Double) throws {
        try run {
            var last: any Error = TestbedError("no time")
            let ready = waitUntil(seconds: seconds, interval: 10) {
                do {
                    let connection = try KeyValueConnection(self, timeout: 1)
                    connection.get("apus:ready")
                    return try connection.reply() == .missing
                } catch {
                    last = error
                    return false
                }
            }
            if !ready {
                throw TestbedError("\(dialect) at \(address):\(port) did not answer in \(seconds) s: \(last)")
            }
        }
    }
}

/// A store's answer.
enum KeyValueReply: Equatable {
    case stored
    case value([UInt8])
    case missing
    /// Anything else, in the store's words.
    case other(String)
}

final class KeyValueConnection: ClientConnection {
    private let dialect: KeyValueDialect
    private var resp = RESPReader()
    private var memcached = MemcachedReader()

    /// Connects. Reads and writes that make no progress for `timeout` seconds fail.
    init(_ server: KeyValueServer, timeout: Double) throws {
        dialect = server.dialect
        try super.init(dialect.rawValue, address: server.address, port: server.port, timeout: timeout)
    }

    /// Appends a read to `output`.
    func get(_ key: String) {
        switch dialect {
        case .redis: RESPCommand.append("GET", key, to: &output)
        case .memcached: output += Array("get \(key)\r\n".utf8)
        }
    }

    /// Appends a write to `output`.
    func set(_ key: String, _ value: [UInt8]) {
        switch dialect {
        case .redis: RESPCommand.append([Array("SET".utf8), Array(key.utf8), value], to: &output)
        case .memcached:
            output += Array("set \(key) 0 0 \(value.count)\r\n".utf8)
            output += value
            output += [13, 10]
        }
    }

    override func received(_ piece: UnsafeRawBufferPointer) {
        switch dialect {
        case .redis: resp.append(piece)
        case .memcached: memcached.append(piece)
        }
    }

    /// A reply that has arrived whole, nil if there is none.
    func takeReply() throws -> KeyValueReply? {
        switch dialect {
        case .memcached: return try memcached.next()
        case .redis:
            switch try resp.next() {
            case nil: return nil
            case .simple("OK"): return .stored
            case .bulk(let bytes): return .value(bytes)
            case .null: return .missing
            case .some(let reply): return .other("\(reply)")
            }
        }
    }

    /// Sends `output` and waits for a reply.
    func reply() throws -> KeyValueReply {
        try flush(blocking: true)
        while true {
            if let reply = try takeReply() { return reply }
            try fill(blocking: true)
        }
    }
}

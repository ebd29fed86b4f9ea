// The client of a key-value store: fills it, asks by a YCSB-like mix, judges every answer, checks everything at the
// end.
import DequeModule
import Glibc

/// Asks a store at a steady rate over several TCP connections (`SteadyClient`). Reads go to the connections in turn, a
/// key's writes always to the same one (see `KeyValueOracle`).
public final class KeyValueProbe {
    public struct Options: Sendable {
        public var mix = KeyValueMix.a
        public var distribution = AccessDistribution.zipf
        /// Requests a second, over all connections.
        public var rate = 1000.0
        public var connections = 8
        /// Bytes of values; the number of keys follows from it.
        public var bytes: UInt64
        public var valueSize = 1024
        public var seed: UInt64 = 1
        public init(bytes: UInt64) { self.bytes = bytes }
    }

    private let conversation: KeyValueConversation
    private let client: SteadyClient

    /// Fills the store, connects and begins to ask.
    public init(_ server: KeyValueServer, options: Options) throws {
        conversation = KeyValueConversation(server, options)
        try conversation.fill()
        client = try SteadyClient(conversation, in: server.namespace, rate: options.rate)
    }

    /// Ends the client: waits for outstanding answers, then asks (over another connection) for every key. To be called
    /// once.
    public func stop() -> KeyValueRecording {
        let recording = client.stop()
        do { try conversation.checkAll() } catch {
            conversation.oracle.note("the final check could not be made: \(error)")
        }
        return KeyValueRecording(client: recording, oracle: conversation.oracle)
    }
}

/// Everything that a `KeyValueProbe` recorded.
public struct KeyValueRecording: Sendable {
    let client: SteadyRecording
    let oracle: KeyValueOracle

    public var asked: ProbeRecording { client.asked }
    public var problems: [String] { oracle.problems }

    /// - Parameter blackouts: freeze begun to release of each migration.
    public func verdicts(blackouts: [ClosedRange<Int64>] = []) -> [Verdict] {
        oracle.verdicts + client.verdicts(blackouts: blackouts)
    }
}

private final class KeyValueConversation: Conversation {
    private struct Pending {
        var key: Int
        /// The write's number; nil: it is a read.
        var write: UInt32?
        /// What a read must give at least.
        var least: UInt32
    }

    private let server: KeyValueServer
    private let options: KeyValueProbe.Options
    private var chooser: KeyChooser
    private var connections: [KeyValueConnection] = []
    private var pending: [Deque<Pending>] = []
    private var asked = 0
    var oracle: KeyValueOracle

    init(_ server: KeyValueServer, _ options: KeyValueProbe.Options) {
        (self.server, self.options) = (server, options)
        let records = KeyValueRecords(size: options.valueSize)
        oracle = KeyValueOracle(keys: max(1, Int(options.bytes) / records.size), records: records)
        chooser = KeyChooser(options.distribution, count: oracle.keys, seed: options.seed)
    }

    func connect() throws -> [ClientConnection] {
        connections = try (0..<options.connections).map { _ in try KeyValueConnection(server, timeout: 5) }
        pending = Array(repeating: [], count: connections.count)
        return connections
    }

    func ask() -> Int {
        let key = chooser.next()
        let isRead = chooser.chance() < options.mix.reads
        let lane = (isRead ? asked : key) % connections.count
        asked += 1
        if isRead {
            pending[lane].append(Pending(key: key, write: nil, least: oracle.least(key)))
            connections[lane].get(KeyValueRecords.key(key))
        } else {
            let version = oracle.write(key)
            pending[lane].append(Pending(key: key, write: version, least: 0))
            connections[lane].set(KeyValueRecords.key(key), oracle.records.value(key, version))
        }
        return lane
    }

    func take(_ lane: Int) throws -> Bool {
        guard let reply = try connections[lane].takeReply() else { return false }
        guard let request = pending[lane].popFirst() else { throw RESPReader.Malformed() }
        switch (request.write, reply) {
        case (let version?, .stored): oracle.acknowledge(request.key, version)
        case (nil, .value(let bytes)): oracle.judge(bytes, of: request.key, least: request.least)
        case (nil, .missing): oracle.judge(nil, of: request.key, least: request.least)
        default:
            oracle.otherErrors += 1
            oracle.note("unexpected reply: \(reply)")
        }
        return true
    }

    // -- Before and after: all keys, many in flight

    private static let batch = 64

    func fill() throws {
        try server.run {
            let connection = try KeyValueConnection(server, timeout: 60)
            for start in stride(from: 0, to: oracle.keys, by: Self.batch) {
                let keys = start..<min(start + Self.batch, oracle.keys)
                for key in keys {
                    connection.set(KeyValueRecords.key(key), oracle.records.value(key, oracle.write(key)))
                }
                for key in keys {
                    let reply = try connection.reply()
                    guard reply == .stored else {
                        throw TestbedError("filling \(server.dialect): \(KeyValueRecords.key(key)): \(reply)")
                    }
                    oracle.acknowledge(key, 1)
                }
            }
        }
    }

    func checkAll() throws {
        try server.run {
            let connection = try KeyValueConnection(server, timeout: 60)
            for start in stride(from: 0, to: oracle.keys, by: Self.batch) {
                let keys = start..<min(start + Self.batch, oracle.keys)
                for key in keys { connection.get(KeyValueRecords.key(key)) }
                for key in keys {
                    switch try connection.reply() {
                    case .value(let bytes): oracle.judgeAtEnd(bytes, of: key)
                    case .missing: oracle.judgeAtEnd(nil, of: key)
                    case let reply: throw TestbedError("\(KeyValueRecords.key(key)): \(reply)")
                    }
                }
            }
        }
    }
}

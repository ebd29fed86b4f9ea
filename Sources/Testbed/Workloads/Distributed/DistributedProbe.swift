// The client of the distributed application: sessions over one connection each, every answer judged.
import Glibc

/// Asks the gateway at a steady rate (`SteadyClient`), its sessions in turn.
final class DistributedProbe {
    private let conversation: DistributedConversation
    private let client: SteadyClient

    /// - Parameters:
    ///   - gateway: its address.
    ///   - store: where the worker's store is; the client looks there at the end.
    init(gateway: String, store: RedisEndpoint, rate: Double, sessions: Int = 8) throws {
        conversation = DistributedConversation(gateway: gateway, store: store, sessions: sessions)
        client = try SteadyClient(conversation, in: store.namespace, rate: rate)
    }

    /// Ends the client: waits for outstanding answers, then asks all services what they hold. To be called once.
    func stop() -> (client: SteadyRecording, oracle: DistributedOracle) {
        let recording = client.stop()
        do { try conversation.checkAll() } catch {
            conversation.oracle.note("gateway", "the final check could not be made: \(error)")
        }
        return (recording, conversation.oracle)
    }
}

/// A connection that takes messages.
final class DistributedConnection: ClientConnection {
    static let port: UInt16 = 9000
    private var input: [UInt8] = []
    private var head = 0

    init(_ address: String, timeout: Double) throws {
        try super.init("the gateway", address: address, port: Self.port, timeout: timeout)
    }

    override func received(_ piece: UnsafeRawBufferPointer) {
        input.removeFirst(head)
        head = 0
        input.append(contentsOf: piece)
    }

    func takeMessage() -> DistributedMessage? {
        guard input.count - head >= DistributedMessage.size else { return nil }
        defer { head += DistributedMessage.size }
        return DistributedMessage(input[head..<head + DistributedMessage.size])
    }

    /// What gateway and worker hold.
    func status() throws -> DistributedMessage {
        DistributedMessage(.status).append(to: &output)
        try flush(blocking: true)
        while true {
            if let message = takeMessage() { return message }
            try fill(blocking: true)
        }
    }
}

private final class DistributedConversation: Conversation {
    private let gateway: String
    private let store: RedisEndpoint
    private let sessions: Int
    private var connections: [DistributedConnection] = []
    private var asked = 0
    var oracle: DistributedOracle

    init(gateway: String, store: RedisEndpoint, sessions: Int) {
        (self.gateway, self.store, self.sessions) = (gateway, store, sessions)
        oracle = DistributedOracle(sessions: sessions)
    }

    func connect() throws -> [ClientConnection] {
        connections = try (0..<sessions).map { _ in try DistributedConnection(gateway, timeout: 5) }
        return connections
    }

    func ask() -> Int {
        let session = asked % sessions
        asked += 1
        oracle.ask(session).append(to: &connections[session].output)
        return session
    }

    func take(_ session: Int) throws -> Bool {
        guard let message = connections[session].takeMessage() else { return false }
        oracle.judge(message, of: session)
        return true
    }

    func checkAll() throws {
        try store.run {
            // The worker looks at all of its pages first.
            let status = try DistributedConnection(gateway, timeout: 120).status()
            let connection = try RedisConnection(store, timeout: 10)
            let held = try (0..<sessions).map { session -> UInt64? in
                guard case .bulk(let bytes) = try connection.call("GET", "session:\(session)") else { return nil }
                return UInt64(String(decoding: bytes, as: UTF8.self), radix: 16)
            }
            oracle.judgeAtEnd(status, held: held)
        }
    }
}

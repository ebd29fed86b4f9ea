// The dirtier's client: asks each millisecond, over one connection, how much has been written.
import Glibc
import LinuxKernel

/// One connection to a dirtier. An answer counts when it names its request.
final class DirtierClient {
    private let conversation: DirtierConversation
    private let client: SteadyClient

    /// Connects and begins to ask.
    init(_ endpoint: ServiceEndpoint) throws {
        conversation = DirtierConversation(endpoint)
        client = try SteadyClient(conversation, in: endpoint.namespace, rate: 1000)
    }

    /// Waits for outstanding answers. To be called once.
    func stop() -> DirtierRecording {
        let steady = client.stop()
        return DirtierRecording(steady: steady, progress: conversation.progress.all, mistake: conversation.mistake)
    }
}

/// Everything that a `DirtierClient` recorded.
struct DirtierRecording {
    let steady: SteadyRecording
    /// When answers came (CLOCK_MONOTONIC nanoseconds), and how many pages had been written by then.
    let progress: [(at: Int64, writes: UInt64)]
    /// The first answer that was wrong.
    let mistake: String?

    /// Between the first and the last answer of a stretch; nil: there are none.
    func pagesPerSecond(from: Int64, to: Int64) -> Double? {
        let within = progress.filter { $0.at >= from && $0.at <= to }
        guard let first = within.first, let last = within.last, last.at > first.at else { return nil }
        return Double(last.writes - first.writes) / (Double(last.at - first.at) / 1e9)
    }

    func verdicts(blackouts: [ClosedRange<Int64>]) -> [Verdict] {
        [Verdict("every answer names its request", mistake == nil, mistake ?? "\(progress.count) answers")]
            + steady.verdicts(blackouts: blackouts)
    }
}

private final class DirtierConversation: Conversation {
    private let endpoint: ServiceEndpoint
    private var connection: DirtierConnection!
    private var asked: UInt64 = 0, answered: UInt64 = 0, writes: UInt64 = 0
    private(set) var progress = ChunkedList<(at: Int64, writes: UInt64)>()
    private(set) var mistake: String?

    init(_ endpoint: ServiceEndpoint) { self.endpoint = endpoint }

    func connect() throws -> [ClientConnection] {
        connection = try DirtierConnection(
            "the dirtier", address: endpoint.address, port: endpoint.port, timeout: 5)
        return [connection]
    }

    func ask() -> Int {
        withUnsafeBytes(of: asked.littleEndian) { connection.output += $0 }
        asked += 1
        return 0
    }

    func take(_: Int) throws -> Bool {
        guard let (request, written) = connection.next() else { return false }
        if request != answered, mistake == nil { mistake = "request \(answered) was answered as \(request)" }
        if written < writes, mistake == nil { mistake = "\(written) pages written after \(writes)" }
        answered += 1
        writes = max(writes, written)
        progress.append((monotonicNow(), writes))
        return true
    }
}

private final class DirtierConnection: ClientConnection {
    private var unread: [UInt8] = []

    override func received(_ piece: UnsafeRawBufferPointer) { unread += piece }

    /// The next answer: the request's number, and the pages written so far.
    func next() -> (request: UInt64, writes: UInt64)? {
        guard unread.count >= 16 else { return nil }
        defer { unread.removeFirst(16) }
        return unread.withUnsafeBytes {
            (
                UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)),
                UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            )
        }
    }
}

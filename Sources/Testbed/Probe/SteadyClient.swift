// A client that asks at a steady rate over several TCP connections, whatever it says on them.
import CLinux
import DequeModule
import Glibc
import LinuxKernel

/// What a client says, and what it makes of the answers. All of it is called on the client's thread.
protocol Conversation: AnyObject {
    /// Opens the connections, in the client's network namespace.
    func connect() throws -> [ClientConnection]
    /// Appends the next request to a connection's output.
    ///
    /// - Returns: that connection's position.
    func ask() -> Int
    /// Takes and judges the next answer on a connection. Answers come in the order of the requests.
    ///
    /// - Returns: false: none has arrived whole.
    func take(_ connection: Int) throws -> Bool
}

/// Holds a conversation, open-loop: it sends on while answers are outstanding, and a request counts from when it was
/// due.
final class SteadyClient: @unchecked Sendable {
    private struct Lane {
        let connection: ClientConnection
        /// Requests in flight.
        var pending = Deque<Int>()
        var watch: RetransmissionWatch
    }

    private let conversation: any Conversation
    /// Requests a second, over all connections.
    private let rate: Double
    /// How long `stop` waits for outstanding answers, seconds.
    private let patience: Double
    // Only the thread touches these while it runs; `stop` reads them after joining it.
    private var requests = ChunkedList<(lane: Int, request: ProbeRequest)>()
    private var answered = 0
    private var lanes: [Lane] = []
    private var closed: String?
    private var thread: ClientThread?

    /// Connects and begins to ask.
    ///
    /// - Parameter namespace: the client's network namespace; nil: this process's own.
    init(_ conversation: any Conversation, in namespace: NamedNetwork?, rate: Double, patience: Double = 10) throws {
        (self.conversation, self.rate, self.patience) = (conversation, rate, patience)
        thread = try ClientThread(
            "steady-client", in: namespace, to: "a client", patience: 30,
            connect: { [self] in
                lanes = try self.conversation.connect().map { Lane(connection: $0, watch: RetransmissionWatch($0.tcp)) }
            },
            run: { [self] thread, _ in do { try run(thread) } catch { closed = "\(error)" } })
    }

    /// Waits for outstanding answers and closes the connections. To be called once.
    func stop() -> SteadyRecording {
        thread?.stop()
        let all = requests.all
        var byConnection = [[ProbeRequest]](repeating: [], count: lanes.count)
        for (lane, request) in all { byConnection[lane].append(request) }
        defer { lanes = [] }
        return SteadyRecording(
            asked: ProbeRecording(all.map(\.request)), byConnection: byConnection, unanswered: all.count - answered,
            closed: closed, retransmissions: lanes.flatMap(\.watch.events))
    }

    private func run(_ thread: ClientThread) throws {
        let period = 1e9 / rate
        let begin = Double(monotonicNow())
        func due(_ number: Int) -> Int64 { Int64(begin + Double(number + 1) * period) }
        var giveUp = Int64.max
        var nextLook: Int64 = 0
        var entries = lanes.map { pollfd(fd: $0.connection.descriptor.number, events: 0, revents: 0) }
        while true {
            let now = monotonicNow()
            let mayEnd = thread.isStopping
            if mayEnd && giveUp == Int64.max { giveUp = now + Int64(patience * 1e9) }
            if mayEnd && (answered == requests.count || now > giveUp) { return }
            while !mayEnd && due(requests.count) <= now {
                let lane = conversation.ask()
                lanes[lane].pending.append(requests.count)
                requests.append((lane, ProbeRequest(intended: due(requests.count), sent: now)))
            }
            for index in lanes.indices {
                let connection = lanes[index].connection
                if !connection.output.isEmpty { try connection.flush(blocking: false) }
                entries[index].events = Int16(POLLIN | (connection.output.isEmpty ? 0 : POLLOUT))
            }
            let pause = mayEnd ? 1_000_000 : max(0, due(requests.count) - monotonicNow())
            let ready = clx_poll(&entries, UInt32(entries.count), pause)
            for index in lanes.indices where ready > 0 && entries[index].revents & ~Int16(POLLOUT) != 0 {
                do { try lanes[index].connection.fill(blocking: false) } catch {
                    // What arrived before the end still counts.
                    try takeAnswers(index)
                    throw error
                }
                try takeAnswers(index)
            }
            if now >= nextLook {
                for index in lanes.indices { lanes[index].watch.look(lanes[index].connection.tcp) }
                nextLook = now + 1_000_000
            }
        }
    }

    private func takeAnswers(_ index: Int) throws {
        let now = monotonicNow()
        while try conversation.take(index) {
            guard let request = lanes[index].pending.popFirst() else {
                throw ClientConnection.Closed(description: "an answer that nobody asked for")
            }
            requests[request].request.answered = now
            answered += 1
        }
    }
}

/// Everything that a `SteadyClient` recorded.
struct SteadyRecording: Sendable {
    let asked: ProbeRecording
    let byConnection: [[ProbeRequest]]
    let unanswered: Int
    /// Why a connection ended before `stop`; nil: none did.
    let closed: String?
    let retransmissions: [RetransmissionEvent]

    /// That every connection held, and none waited for a timer.
    ///
    /// - Parameter blackouts: freeze begun to release of each migration.
    func verdicts(blackouts: [ClosedRange<Int64>] = []) -> [Verdict] {
        [
            Verdict(
                "TCP connections never closed", closed == nil && unanswered == 0,
                closed
                    ?? (unanswered == 0
                        ? "\(byConnection.count) connections throughout" : "\(unanswered) requests without an answer")),
            .noRetransmissionWait(retransmissions, byConnection, blackouts: blackouts),
        ]
    }
}

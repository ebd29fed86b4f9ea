// The client of the demo: keeps one connection open, asks at a steady rate, records and checks every answer.
import CLinux
import Glibc
import LinuxKernel
import Synchronization

/// One request and its answer. Times are CLOCK_MONOTONIC nanoseconds.
public struct ProbeSample: Sendable {
    public enum Kind: UInt8, Sendable { case increment, set, get }
    public var kind: Kind
    /// When it was to be sent: a client that cannot send in time must not flatter the server (coordinated omission).
    public var intended: Int64
    public var sent: Int64
    /// 0: no answer came.
    public var answered: Int64
    /// The server's own clock when it served the request: microseconds since 1970; 0: no answer.
    public var served: Int64
}

/// Asks a redis server at a steady rate over one TCP connection.
///
/// Every period (1 ms by default) it sends one segment with one request and a TIME: the requests are in turn INCR of
/// a counter, SET of a new key, GET of a key set before (in turn the last one and any earlier one). It is open-loop: it
/// sends on while answers are outstanding. The TIME tells when the server itself was at work, since redis has no tick
/// fine enough: the largest gap between two of those times is the downtime as the workload saw it.
///
/// It runs on a thread of its own, in the real-time class where that is permitted: it stands for another machine, so
/// its own scheduling must not look like the server's delay.
public final class RedisProbe: @unchecked Sendable {
    public struct Options: Sendable {
        /// Requests a second.
        public var rate = 1000.0
        /// Bytes a value set.
        public var valueSize = 64
        /// SETs go to this many keys, one after the other, then from the first one again.
        public var keys = 200_000
        /// How long `stop` waits for outstanding answers, seconds.
        public var patience = 10.0
        /// Part of the keys' names.
        public var name = "probe"
        public init() {}
    }

    let endpoint: RedisEndpoint
    let options: Options
    private let failureNoted = Mutex<String?>(nil)
    // Only the thread touches these while it runs; `stop` reads them after joining it.
    private var samples = SampleStore()
    private var oracle: RedisOracle
    private var retransmissions = RetransmissionWatch(nil)
    private var counters = TCPCounters()
    private var closed: (at: Int64, why: String)?
    private var unanswered = 0
    private var realTime = false
    private var connection: RedisConnection?
    private var thread: ClientThread?

    /// Connects and begins to ask.
    public init(_ endpoint: RedisEndpoint, options: Options = Options()) throws {
        self.endpoint = endpoint
        self.options = options
        oracle = RedisOracle(name: options.name, keys: options.keys, valueSize: options.valueSize)
        thread = try ClientThread(
            "redis-probe", in: endpoint.namespace, to: "redis at \(endpoint.address):\(endpoint.port)", patience: 30,
            connect: { [self] in
                let connection = try RedisConnection(endpoint, timeout: 5)
                try oracle.prepare(connection)
                (self.connection, counters) = (connection, try TCPCounters.here())
            },
            run: { [self] thread, isRealTime in
                realTime = isRealTime
                run(connection!, thread)
                do { counters = try TCPCounters.here() - counters } catch { failureNoted.withLock { $0 = "\(error)" } }
                connection = nil
            })
    }

    /// What is wrong so far, nil while all is well; for a look in between.
    public var failure: String? { failureNoted.withLock { $0 } }

    /// Ends the client: waits for outstanding answers, then asks (over a second connection) for everything that was
    /// acknowledged. To be called once.
    public func stop() -> RedisRecording {
        thread?.stop()
        var recording = RedisRecording(
            period: 1e9 / options.rate, samples: samples.all(), unanswered: unanswered, closed: closed?.why,
            closedAt: closed?.at, timeoutEvents: retransmissions.events, counters: counters, realTime: realTime)
        do {
            try endpoint.run { try oracle.check(RedisConnection(endpoint, timeout: 10)) }
        } catch {
            oracle.problems.append("the final check could not be made: \(error)")
            oracle.lost += 1
        }
        if let failure, closed == nil { oracle.problems.append(failure) }
        recording.writesAcknowledged = oracle.acknowledged
        recording.writesLost = oracle.lost
        recording.counterErrors = oracle.counterErrors
        recording.staleReads = oracle.staleReads
        recording.otherErrors = oracle.otherErrors
        recording.problems = oracle.problems
        return recording
    }

    private func run(_ connection: RedisConnection, _ thread: ClientThread) {
        let period = Int64(1e9 / options.rate)
        var next = monotonicNow() + period
        retransmissions = RetransmissionWatch(connection.tcp)
        var giveUp = Int64.max
        var position = 0
        do {
            while true {
                var now = monotonicNow()
                let mayEnd = thread.isStopping
                if mayEnd && giveUp == Int64.max { giveUp = now + Int64(options.patience * 1e9) }
                if mayEnd && (samples.answered == samples.count || now > giveUp) { break }
                if !mayEnd && now >= next {
                    while next <= now {
                        let kind = ProbeSample.Kind(rawValue: UInt8(position % 3))!
                        position += 1
                        oracle.append(kind, to: &connection.output)
                        RESPCommand.append("TIME", to: &connection.output)
                        samples.append(ProbeSample(kind: kind, intended: next, sent: now, answered: 0, served: 0))
                        next += period
                    }
                }
                if !connection.output.isEmpty { try connection.flush(blocking: false) }
                now = monotonicNow()
                let pause = mayEnd ? 1_000_000 : max(0, next - now)
                var entry = pollfd(
                    fd: connection.descriptor.number,
                    events: Int16(POLLIN | (connection.output.isEmpty ? 0 : POLLOUT)), revents: 0)
                if clx_poll(&entry, 1, pause) > 0 && entry.revents & ~Int16(POLLOUT) != 0 {
                    try connection.fill(blocking: false)
                    try takeReplies(connection)
                }
                retransmissions.look(connection.tcp)
            }
        } catch {
            // What arrived before the end still counts.
            try? takeReplies(connection)
            closed = (monotonicNow(), "\(error)")
            failureNoted.withLock { $0 = "connection lost: \(error)" }
        }
        unanswered = samples.count - samples.answered
    }

    private var half = false

    /// Two replies a sample: the request's and TIME's.
    private func takeReplies(_ connection: RedisConnection) throws {
        let now = monotonicNow()
        while let reply = try connection.takeReply() {
            if half {
                if case .array(let parts) = reply, parts.count == 2, case .bulk(let seconds) = parts[0],
                    case .bulk(let micros) = parts[1],
                    let whole = Int64(String(decoding: seconds, as: UTF8.self)),
                    let part = Int64(String(decoding: micros, as: UTF8.self))
                {
                    samples.serve(whole * 1_000_000 + part)
                } else {
                    oracle.note("TIME answered \(reply)")
                    oracle.otherErrors += 1
                }
                half = false
            } else {
                guard samples.answered < samples.count else { throw RESPReader.Malformed() }
                samples.answer(now)
                oracle.judge(reply)
                if let problem = oracle.problems.first {
                    failureNoted.withLock { $0 = $0 ?? problem }
                }
                half = true
            }
        }
    }
}

/// Samples in chunks: growing never copies what is there, which would delay the client by milliseconds.
private struct SampleStore {
    private static let size = 1 << 16
    private var chunks: [UnsafeMutablePointer<ProbeSample>] = []
    private(set) var count = 0
    /// Answers come in order, so this many samples are answered.
    private(set) var answered = 0

    mutating func append(_ sample: ProbeSample) {
        if count & (Self.size - 1) == 0 { chunks.append(.allocate(capacity: Self.size)) }
        (chunks[count / Self.size] + count % Self.size).initialize(to: sample)
        count += 1
    }
    mutating func answer(_ time: Int64) {
        chunks[answered / Self.size][answered % Self.size].answered = time
        answered += 1
    }
    /// The server's time of the sample answered last.
    func serve(_ time: Int64) { chunks[(answered - 1) / Self.size][(answered - 1) % Self.size].served = time }

    /// Everything as an array; the store is empty afterwards.
    mutating func all() -> [ProbeSample] {
        let result = (0..<count).map { chunks[$0 / Self.size][$0 % Self.size] }
        for chunk in chunks { chunk.deallocate() }
        chunks = []
        count = 0
        answered = 0
        return result
    }
}

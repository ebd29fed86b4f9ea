// What a client saw, and what follows from it.

/// Everything a `RedisProbe` recorded. Times are CLOCK_MONOTONIC nanoseconds where nothing else is said.
public struct RedisRecording: Sendable {
    /// Nanoseconds between two requests.
    public let period: Double
    public let samples: [ProbeSample]
    public let unanswered: Int
    /// Why the connection ended before `stop`; nil: it did not.
    public let closed: String?
    public let closedAt: Int64?
    public let timeoutEvents: [RetransmissionEvent]
    /// The namespace's TCP counters, end minus begin.
    public let counters: TCPCounters
    /// Whether the client ran in the real-time class.
    public let realTime: Bool
    public internal(set) var writesAcknowledged = 0
    public internal(set) var writesLost = 0
    public internal(set) var counterErrors = 0
    public internal(set) var staleReads = 0
    public internal(set) var otherErrors = 0
    public internal(set) var problems: [String] = []

    /// The usual gap between two answers (median over the whole recording), milliseconds.
    public var usualGap: Double { Self.median(gaps(of: samples.filter { $0.answered > 0 }.map(\.answered))) / 1e6 }
    private var usualServedGap: Double {
        Self.median(gaps(of: samples.filter { $0.served > 0 }.map(\.served))) / 1e3
    }

    private func gaps(of times: [Int64]) -> [Int64] { zip(times.dropFirst(), times).map { $0 - $1 } }

    static func median(_ values: [Int64]) -> Double { values.isEmpty ? 0 : Double(values.sorted()[values.count / 2]) }

    /// Share `p` (0...1) of a sorted list lies at or below the result.
    static func quantile(_ sorted: [Int64], _ p: Double) -> Int64 {
        sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, max(0, Int((p * Double(sorted.count)).rounded(.up)) - 1))]
    }

    /// What the client saw between two instants. All times in milliseconds.
    public struct Window: Sendable, Codable {
        public var requests = 0
        public var unanswered = 0
        /// Largest gap between two answers minus the usual gap; of the gaps that touch the blackout, if one is given.
        public var clientDowntime = 0.0
        /// The same between two times that the server's own clock told.
        public var workloadDowntime = 0.0
        /// Of all gaps of the window, and of those that do not touch the blackout.
        public var largestGap = 0.0
        public var largestGapElsewhere = 0.0
        public var usualGap = 0.0
        /// When the largest gap began (CLOCK_MONOTONIC nanoseconds).
        public var gapBegan: Int64 = 0
        /// Latency counted from the intended instant of sending, and the slowest from the actual one.
        public var slowest = 0.0
        public var slowestFromSending = 0.0
        public var p50 = 0.0
        public var p99 = 0.0
        public var p999 = 0.0
        /// 99 % of the gaps between two answers are at most this.
        public var gapP99 = 0.0
        /// Requests answered later than 10 ms after their intended instant.
        public var late = 0
        public var timeouts = 0
        public var retransmitted = 0
    }

    /// 250 ms: longer than any timer that the blackout may have started.
    private static let aftermath: Int64 = 250_000_000

    /// - Parameter blackout: freeze begun to release. What follows within `aftermath` counts as touching it.
    public func window(_ from: Int64 = .min, _ to: Int64 = .max, blackout: ClosedRange<Int64>? = nil) -> Window {
        var result = Window()
        result.usualGap = usualGap
        let range = from...to
        // A request belongs to the window in which it was due; an answer to that in which it came.
        let asked = samples.filter { range.contains($0.intended) }
        result.requests = asked.count
        result.unanswered = asked.count { $0.answered == 0 }
        let latencies = asked.filter { $0.answered > 0 }.map { $0.answered - $0.intended }.sorted()
        result.slowest = Double(latencies.last ?? 0) / 1e6
        result.slowestFromSending =
            Double(asked.filter { $0.answered > 0 }.map { $0.answered - $0.sent }.max() ?? 0) / 1e6
        result.p50 = Double(Self.quantile(latencies, 0.5)) / 1e6
        result.p99 = Double(Self.quantile(latencies, 0.99)) / 1e6
        result.p999 = Double(Self.quantile(latencies, 0.999)) / 1e6
        result.late = latencies.count { $0 > 10_000_000 }
        let answers = samples.filter { $0.answered > 0 && range.contains($0.answered) }
        let between = gaps(of: answers.map(\.answered))
        if let largest = between.indices.max(by: { between[$0] < between[$1] }) {
            result.largestGap = Double(between[largest]) / 1e6
            result.gapBegan = answers[largest].answered
        }
        result.gapP99 = Double(Self.quantile(between.sorted(), 0.99)) / 1e6
        let touches = { (earlier: Int64, later: Int64) in
            blackout.map { later >= $0.lowerBound && earlier <= $0.upperBound + Self.aftermath } ?? true
        }
        var (client, workload, elsewhere) = (Int64(0), Int64(0), Int64(0))
        for (earlier, later) in zip(answers, answers.dropFirst()) {
            let gap = later.answered - earlier.answered
            if touches(earlier.answered, later.answered) {
                client = max(client, gap)
            } else {
                elsewhere = max(elsewhere, gap)
            }
        }
        let served = answers.filter { $0.served > 0 }
        for (earlier, later) in zip(served, served.dropFirst()) where touches(earlier.answered, later.answered) {
            workload = max(workload, later.served - earlier.served)
        }
        result.clientDowntime = max(0, Double(client) / 1e6 - result.usualGap)
        result.workloadDowntime = max(0, Double(workload) / 1e3 - usualServedGap)
        result.largestGapElsewhere = Double(elsewhere) / 1e6
        for event in timeoutEvents where range.contains(event.at) {
            result.timeouts += event.timeouts
            result.retransmitted += event.retransmitted
        }
        return result
    }
}

/// One thing that must hold.
public struct Verdict: Sendable, Codable {
    public var name: String
    public var passed: Bool
    public var detail: String
    public init(_ name: String, _ passed: Bool, _ detail: String) {
        self.name = name
        self.passed = passed
        self.detail = detail
    }
}

extension RedisRecording {
    /// The verdicts.
    ///
    /// - Parameter blackouts: freeze begun to release of each migration.
    public func verdicts(blackouts: [ClosedRange<Int64>] = []) -> [Verdict] {
        // Everything that was asked was answered, except after the connection's end.
        let kept = closed == nil && unanswered == 0
        return [
            Verdict(
                "every acknowledged write present", writesLost == 0 && staleReads == 0 && otherErrors == 0,
                "\(writesAcknowledged) acknowledged, \(writesLost) lost, \(staleReads) reads wrong"
                    + (otherErrors > 0 ? ", \(otherErrors) other errors" : "")),
            Verdict(
                "counter without gap or repeat", counterErrors == 0,
                counterErrors == 0 ? "each answer is the last one plus 1" : "\(counterErrors) wrong"),
            Verdict(
                "TCP connection never closed", kept,
                closed ?? (unanswered == 0 ? "one connection throughout" : "\(unanswered) requests without an answer")),
            .noRetransmissionWait(timeoutEvents, [asked.requests], blackouts: blackouts),
        ]
    }
}

// What a client saw of a service, whatever it spoke with it: downtime, latency, deadlines.
import Histogram
import Migration

/// One request (or report, or frame) and its answer. Times are CLOCK_MONOTONIC nanoseconds.
public struct ProbeRequest: Sendable, Hashable {
    /// When it was due: a client that cannot send in time must not flatter the server (coordinated omission).
    public var intended: Int64
    public var sent: Int64
    /// When the first answer came; 0: none came.
    public var answered: Int64
    /// Answers beyond the first.
    public var duplicates: Int

    public init(intended: Int64, sent: Int64, answered: Int64 = 0, duplicates: Int = 0) {
        (self.intended, self.sent, self.answered, self.duplicates) = (intended, sent, answered, duplicates)
    }
}

/// Everything that a client recorded, in the order in which the requests were due.
public struct ProbeRecording: Sendable {
    public var requests: [ProbeRequest]
    /// An answer later than this many nanoseconds after its request was due is late; nil: there is no deadline.
    public var deadline: Int64?

    public init(_ requests: [ProbeRequest], deadline: Int64? = nil) {
        (self.requests, self.deadline) = (requests, deadline)
    }

    /// What follows the release within this time still counts as of the blackout: longer than any retransmission
    /// timer that the blackout may have started (nanoseconds).
    static let aftermath: Int64 = 250_000_000

    /// The largest gap between two answers minus the usual gap (the median over the whole recording), of those that
    /// touch a blackout, milliseconds; and the largest other one within a stretch of time, as it is.
    ///
    /// - Parameters:
    ///   - blackout: freeze begun to release.
    ///   - stretch: what of the recording belongs to the migration.
    public func gaps(touching blackout: ClosedRange<Int64>, within stretch: ClosedRange<Int64>) -> (
        downtime: Double, elsewhere: Double
    ) {
        let answers = requests.lazy.map(\.answered).filter { $0 > 0 }.sorted()
        let all = zip(answers.dropFirst(), answers).map { $0 - $1 }.sorted()
        let usual = all.isEmpty ? 0 : all[all.count / 2]
        var (touching, elsewhere) = (Int64(0), Int64(0))
        for (earlier, later) in zip(answers, answers.dropFirst()) where stretch.contains(earlier) {
            if later >= blackout.lowerBound && earlier <= blackout.upperBound + Self.aftermath {
                touching = max(touching, later - earlier)
            } else {
                elsewhere = max(elsewhere, later - earlier)
            }
        }
        return (max(0, Double(touching - usual)) / 1e6, Double(elsewhere) / 1e6)
    }

    /// The latency of the requests that were due between two instants, counted from when they were due.
    public func summary(_ stretch: String, _ from: Int64, _ to: Int64) -> LatencySummary {
        summary(stretch) { $0 >= from && $0 < to }
    }

    /// The latency of the requests that were due at certain instants.
    public func summary(_ stretch: String, ofThoseDue isMeant: (Int64) -> Bool) -> LatencySummary {
        let due = requests.filter { isMeant($0.intended) }
        let times = due.filter { $0.answered > 0 }.map { $0.answered - $0.intended }.sorted()
        func part(_ share: Double) -> Double { Double(RedisRecording.quantile(times, share)) / 1e6 }
        return LatencySummary(
            stretch: stretch, requests: due.count, unanswered: due.count - times.count,
            late: deadline.map { limit in times.count { $0 > limit } },
            duplicated: due.reduce(0) { $0 + $1.duplicates }, p50: part(0.5), p95: part(0.95), p99: part(0.99),
            p999: part(0.999), slowest: Double(times.last ?? 0) / 1e6, buckets: Self.buckets(times))
    }

    /// Sorted latencies in steps of 4 µs, above 1 ms of less than 1 %.
    private static func buckets(_ times: [Int64]) -> [LatencyBucket] {
        guard let slowest = times.last else { return [] }
        var histogram = Histogram<UInt32>(
            lowestDiscernibleValue: 4096, highestTrackableValue: UInt64(max(slowest, 8192)),
            numberOfSignificantValueDigits: .two)
        for time in times { histogram.record(UInt64(max(0, time))) }
        return histogram.recordedValues().map {
            LatencyBucket(latency: Double(min($0.value, UInt64(max(0, slowest)))) / 1e6, count: Int($0.count))
        }
    }

    /// Every answer from 1 s before an instant to 1 s after it.
    public func timeline(around instant: Int64) -> [TimelinePoint] {
        requests.filter { $0.answered > 0 && abs($0.intended - instant) < 1_000_000_000 }.map {
            TimelinePoint(at: Double($0.intended - instant) / 1e6, latency: Double($0.answered - $0.intended) / 1e6)
        }
    }

    /// What the client noticed of one of several migrations.
    ///
    /// - Parameters:
    ///   - report: the migration's.
    ///   - from, to: where the migrations before and after it end and begin.
    public func observe(_ report: MigrationReport, from: Int64 = .min, to: Int64 = .max) -> Observation {
        let released = report.blackout.upperBound
        let gaps = gaps(
            touching: report.blackout, within: report.decidedAt...min(to, released + 1_000_000_000))
        var result = Observation()
        (result.clientDowntime, result.disturbance) = (gaps.downtime, gaps.elsewhere)
        result.latency = [
            summary("before", from, report.decidedAt), summary("copying", report.decidedAt, report.frozenAt),
            summary("during", report.decidedAt, released), summary("after", released, to),
        ]
        result.timeline = timeline(around: report.frozenAt)
        return result
    }
}

extension MigrationReport {
    /// When the migration was decided (CLOCK_MONOTONIC nanoseconds).
    public var decidedAt: Int64 { releasedAt - Int64(migrationTime * 1e6) }
    /// Freeze begun to release (CLOCK_MONOTONIC nanoseconds).
    public var blackout: ClosedRange<Int64> { frozenAt...max(frozenAt, releasedAt) }
}

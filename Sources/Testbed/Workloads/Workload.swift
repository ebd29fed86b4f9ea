// A service that is moved, its client, and its oracle: what an evaluation does with every workload alike.
import LinuxKernel
import Migration

/// A workload on a testbed, for its containers' life: started, moved any number of times, ended.
public protocol Workload: AnyObject {
    /// The containers' names, in the order in which they are moved, each when the one before it has arrived.
    var containers: [String] { get }
    /// Makes the containers on a host, fills them, and begins to ask, if there is a client; returns when they are in
    /// their steady state.
    func start(on host: EdgeHost) async throws
    /// The client's device had no link in these stretches (CLOCK_MONOTONIC nanoseconds): what TCP's timers made of that
    /// is not held against a migration. To be called before `finish`.
    func hadNoLink(_ outages: [ClosedRange<Int64>])
    /// Ends the client, has everything verified on the hosts where the containers ought to run now, and removes them.
    ///
    /// - Parameter moves: every migration that was made or tried, in order.
    func finish(after moves: [Move]) async throws -> Outcome
    /// Removes the containers, wherever they are, and ends the client; verifies nothing. Does nothing if there are
    /// none.
    func abandon() async
}

extension Workload {
    /// Nothing: most clients ask nothing of timers.
    public func hadNoLink(_ outages: [ClosedRange<Int64>]) {}
}

/// A migration of one of a workload's containers, made or tried.
public struct Move: Sendable {
    public var container: String
    public var source: EdgeHost
    public var destination: EdgeHost
    /// nil: it failed, and the container ought to run on at the source.
    public var report: MigrationReport?

    public init(_ container: String, from source: EdgeHost, to destination: EdgeHost, _ report: MigrationReport?) {
        (self.container, self.source, self.destination, self.report) = (container, source, destination, report)
    }

    /// Where the container ought to run after it.
    public var end: EdgeHost { report == nil ? source : destination }
}

extension [Move] {
    /// Where a container ought to run after all of them; nil: it was never moved.
    func end(of container: String) -> EdgeHost? { last { $0.container == container }?.end }

    /// What a client noticed of each move: see `ProbeRecording.observe`. Nothing of those that failed.
    func observations(by recording: ProbeRecording) -> [Observation] {
        indices.map { index in
            guard let report = self[index].report else { return Observation() }
            let before = self[..<index].last { $0.report != nil }?.report?.releasedAt
            let after = self[(index + 1)...].first { $0.report != nil }?.report?.decidedAt
            return recording.observe(report, from: before ?? .min, to: after ?? .max)
        }
    }
}

/// What came of a workload's life.
public struct Outcome: Codable, Sendable {
    /// What was noticed of each move, in their order.
    public var observations: [Observation] = []
    /// What must hold at the end.
    public var verdicts: [Verdict] = []
    /// Everything that the client recorded, if there is one; not a part of the JSON.
    public var recording: ProbeRecording?

    private enum CodingKeys: String, CodingKey { case observations, verdicts }
    public var passed: Bool { !verdicts.isEmpty && verdicts.allSatisfy(\.passed) }
    public init() {}
}

/// What a workload and its client noticed of one migration. Times in milliseconds.
public struct Observation: Codable, Sendable {
    /// Largest gap between two ticks inside the container, of those that touch the blackout; nil: not known.
    public var workloadDowntime: Double?
    /// Largest gap between two answers minus the usual gap, of those that touch the blackout; nil: there is no client.
    public var clientDowntime: Double?
    /// Largest gap (inside or between answers) while the source was still running: what copying costs.
    public var disturbance: Double?
    /// Pages of 4 KiB that the workload wrote a second between the decision and the freeze; nil: it does not tell.
    public var dirtyRate: Double?
    /// The client's requests before, during (decision to release) and after the migration.
    public var latency: [LatencySummary] = []
    /// The client's answers around the blackout.
    public var timeline: [TimelinePoint] = []

    public init() {}
}

/// A client's latency over a stretch of time. Milliseconds.
public struct LatencySummary: Codable, Sendable {
    /// "before", "copying" (from the decision to the freeze), "during" (from the decision to the release) or "after".
    public var stretch: String
    public var requests: Int
    public var unanswered: Int
    /// Answered after the service's deadline; nil: it has none.
    public var late: Int?
    /// Answers beyond the first.
    public var duplicated: Int
    public var p50: Double
    public var p95: Double
    public var p99: Double
    public var p999: Double
    public var slowest: Double
    /// How long the answers took, shortest first: enough for a distribution function.
    public var buckets: [LatencyBucket] = []
}

/// Answers that took about as long.
public struct LatencyBucket: Codable, Sendable, Hashable {
    /// None of them took longer, milliseconds.
    public var latency: Double
    public var count: Int
}

/// One request: when it was due after the freeze began (negative: before), and how long its answer took, milliseconds.
public struct TimelinePoint: Codable, Sendable {
    public var at: Double
    public var latency: Double
}

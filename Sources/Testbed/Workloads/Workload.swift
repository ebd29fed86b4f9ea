// A service that is moved, its client, and its oracle: what an evaluation does with every workload alike.
import Migration

/// A workload on a testbed, for one container's life: started, moved any number of times, ended.
public protocol Workload: AnyObject {
    /// The container's name.
    var container: String { get }
    /// Makes the container on a host, fills it, and begins to ask, if it has a client; returns when it is in its
    /// steady state.
    func start(on host: EdgeHost) async throws
    /// Ends the client, has everything verified on the host where the container ought to run now, and removes it.
    ///
    /// - Parameter report: of the migration that was made; nil: it failed, and the container ought to run on where it was.
    func finish(on host: EdgeHost, after report: MigrationReport?) async throws -> Observation
    /// Removes the container, wherever it is, and ends the client; verifies nothing. Does nothing if there is none.
    func abandon() async
}

/// What a workload and its client noticed of one migration. Times in milliseconds.
public struct Observation: Codable, Sendable {
    /// Largest gap between two ticks inside the container, of those that touch the blackout; nil: not known.
    public var workloadDowntime: Double?
    /// Largest gap between two answers minus the usual gap, of those that touch the blackout; nil: there is no client.
    public var clientDowntime: Double?
    /// Largest gap (inside or between answers) while the source was still running: what copying costs.
    public var disturbance: Double?
    /// The client's requests before, during (decision to release) and after the migration.
    public var latency: [LatencySummary] = []
    /// The client's answers around the blackout.
    public var timeline: [TimelinePoint] = []
    public var verdicts: [Verdict] = []

    public var passed: Bool { !verdicts.isEmpty && verdicts.allSatisfy(\.passed) }
    public init() {}
}

/// A client's latency over a stretch of time. Milliseconds.
public struct LatencySummary: Codable, Sendable {
    /// "before", "during" or "after".
    public var stretch: String
    public var requests: Int
    public var unanswered: Int
    public var p50: Double
    public var p95: Double
    public var p99: Double
    public var p999: Double
    public var slowest: Double
}

/// One request: when it was due after the freeze began (negative: before), and how long its answer took, milliseconds.
public struct TimelinePoint: Codable, Sendable {
    public var at: Double
    public var latency: Double
}

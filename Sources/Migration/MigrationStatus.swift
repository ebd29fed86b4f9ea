// What a migration tells about itself: its state and progress while it runs, its report at the end.
import LinuxKernel

/// The states of a session, in order. docs/protocol.md describes the transitions.
public enum SessionState: String, Codable, Sendable, CaseIterable {
    case offered, accepted, staged, copying, frozen, prepared, promised, releasing, released, retired
    /// Ended before the promise: the source runs on (or never stopped).
    case aborted
    /// Neither side may decide: ended by `apus resolve`.
    case inDoubt = "in-doubt"

    public var isFinal: Bool { self == .retired || self == .aborted }
}

/// A snapshot of a running migration.
public struct MigrationProgress: Codable, Sendable {
    public var state: SessionState = .offered
    /// Rounds or syncs so far.
    public var passes = 0
    public var pagesSent: UInt64 = 0
    public var bytesSent: UInt64 = 0
    /// Bytes a second over the last second.
    public var rate = 0.0
    /// Pages that the last pass found dirty.
    public var lastPassPages: UInt64 = 0
    /// MiGrror: age of the mirror in milliseconds: since the oldest change that is not at the destination.
    public var mirrorAge: Double?
    /// Seconds since the migration's decision.
    public var elapsed = 0.0
    /// What the migration waits for or worries about, for a person to read.
    public var remark: String?

    public init() {}
}

/// One pass over memory: a round, a sync, or the last one in the freeze.
public struct PassReport: Codable, Sendable {
    /// Milliseconds after the migration's decision.
    public var start: Double
    public var duration: Double
    public var pages: UInt64
    /// Bytes on the wire, frame headers included.
    public var bytes: UInt64
    public init(start: Double, duration: Double, pages: UInt64, bytes: UInt64) {
        self.start = start
        self.duration = duration
        self.pages = pages
        self.bytes = bytes
    }
}

/// A named stretch of time, microseconds.
public struct StepReport: Codable, Sendable {
    public var name: String
    /// "source" or "destination".
    public var side: String
    /// Microseconds after the freeze began (negative: before).
    public var start: Double
    public var duration: Double
    public init(name: String, side: String, start: Double, duration: Double) {
        self.name = name
        self.side = side
        self.start = start
        self.duration = duration
    }
}

/// A handover that was tried.
public struct HandoverReport: Codable, Sendable {
    /// Milliseconds after the migration's decision when the container was stopped, or when the handover was postponed
    /// before it was.
    public var start: Double
    /// Milliseconds for which the container stood still: until it ran on here, or until the destination was released.
    public var frozen: Double
    /// Why it was postponed; nil: it succeeded.
    public var postponed: String?
    public init(start: Double, frozen: Double, postponed: String? = nil) {
        (self.start, self.frozen, self.postponed) = (start, frozen, postponed)
    }
}

/// What a finished migration measured.
public struct MigrationReport: Codable, Sendable {
    public var id = ""
    public var container = ""
    public var source = ""
    public var destination = ""
    public var plan: MigrationPlan
    /// ISO 8601, UTC.
    public var startedAt = ""
    /// Freeze begun to release, milliseconds.
    public var engineDowntime = 0.0
    /// "shared" (both hosts read one monotonic clock) or "estimated ± N µs".
    public var clock = "shared"
    /// CLOCK_MONOTONIC nanoseconds on the source's clock: when the freeze began and when the destination was released.
    public var frozenAt: Int64 = 0
    public var releasedAt: Int64 = 0
    /// Nanoseconds by which the move made the container's CLOCK_MONOTONIC fall behind the hosts'; nil: it shows the
    /// hosts', as after every technique of Apus.
    public var clockLag: Int64?
    /// Nanoseconds to be added to what the container's own CLOCK_MONOTONIC shows, before and after the move, to get the
    /// clock of `frozenAt`; nil: 0.
    public var containerOffset: Int64?
    /// From the decision to the destination serving, milliseconds.
    public var migrationTime = 0.0
    /// From the handover's trigger (at-trigger: the instant at which it was given; when-ready: when the technique had
    /// done) to the destination serving, milliseconds. It contains the last passes before the freeze, and the downtime.
    public var handoverTime: Double?
    /// Counters of the container's first process, read at the decision and when the handover was wanted: their
    /// difference tells what it had of its processors while its memory was copied. Nil: they could not be read.
    public var loadAtDecision: ProcessLoad?
    public var loadAtHandover: ProcessLoad?
    /// Milliseconds between the wish to hand over and the last passes: files, and what could be in the way, are looked
    /// at once more. Without a run-up what is dirtied meanwhile is sent in the freeze.
    public var preparation = 0.0
    /// Milliseconds of migration time by phase, in order: negotiate, stage, copy, freeze.
    public var phases: [Phase] = []
    /// Rounds or syncs before the freeze, then the last pass.
    public var passes: [PassReport] = []
    /// Milliseconds after the decision when what was dirty and unsent could for the first time be sent within the
    /// plan's
    /// `readyWithin`; nil: never, as with λ near 1 or above, or without a copy phase.
    public var readyAt: Double?
    /// Age of the mirror over time (milliseconds after the decision, age in milliseconds).
    public var mirrorAge: [MirrorAge] = []
    /// How events were noticed: "scan" or "faults".
    public var events: String?
    public var pagesSent: UInt64 = 0
    public var bytesSent: UInt64 = 0
    /// Bytes of the state at the handover: resident pages that had to be carried, and the rest.
    public var stateBytes: UInt64 = 0
    /// (bytes sent - size of the state) / size of the state.
    public var overhead: Double { stateBytes == 0 ? 0 : (Double(bytesSent) - Double(stateBytes)) / Double(stateBytes) }
    /// Every handover that was tried, the last one included.
    public var handovers: [HandoverReport] = []
    /// Every step of the freeze on both sides.
    public var steps: [StepReport] = []

    public struct Phase: Codable, Sendable {
        public var name: String
        public var duration: Double
        public init(name: String, duration: Double) {
            self.name = name
            self.duration = duration
        }
    }
    public struct MirrorAge: Codable, Sendable {
        public var at: Double
        public var age: Double
        public init(at: Double, age: Double) {
            self.at = at
            self.age = age
        }
    }

    public init(plan: MigrationPlan) { self.plan = plan }

    /// The same without what grows with the migration's length: passes, ages of the mirror, steps.
    public var withoutSeries: MigrationReport {
        var report = self
        (report.passes, report.mirrorAge, report.steps) = ([], [], [])
        return report
    }
}

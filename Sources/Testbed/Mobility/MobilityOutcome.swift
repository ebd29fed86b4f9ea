// What came of a mobility run: every handoff, every migration, every user.
import Migration

/// A user device changed its access point.
public struct MobilityHandoff: Codable, Sendable {
    /// Index of the user.
    public var user: Int
    /// Seconds of the trace.
    public var time: Double
    /// Names of access points.
    public var from: String
    public var to: String
    /// Nothing passed any more by the old one, everything passes by the new one (CLOCK_MONOTONIC nanoseconds).
    public var leftAt: Int64 = 0
    public var joinedAt: Int64 = 0
    /// The service ran on the new access point's host when the device had joined it.
    public var wasLocal = false
    /// Time without answers, from the handoff and the migration that belongs to it, milliseconds.
    public var interruption: Double?
    /// Index of the migration that belongs to it: handed over or decided by it. nil: there is none.
    public var migration: Int?

    public init(user: Int, time: Double, from: String, to: String) {
        (self.user, self.time, self.from, self.to) = (user, time, from, to)
    }

    public var outage: ClosedRange<Int64> { leftAt...max(leftAt, joinedAt) }
    /// The device's time without a link, milliseconds.
    public var radio: Double { Double(joinedAt - leftAt) / 1e6 }
}

/// A migration that an event decided. Times in seconds of the trace.
public struct MobilityMigration: Codable, Sendable {
    public enum End: String, Codable, Sendable { case arrived, cancelled, failed }
    public var user: Int
    public var container: String
    /// Names of hosts.
    public var source: String
    public var destination: String
    public var handover: HandoverPolicy
    public var decidedAt: Double
    /// When the user entered the migration zone; nil: not before the handoff.
    public var zoneAt: Double?
    /// nil: it was cancelled before.
    public var handoffAt: Double?
    public var releasedAt: Double?
    public var end = End.failed
    /// The session's state when the handoff came, as the agent told.
    public var stateAtHandoff: String?
    /// The technique had been ready when the handoff came. nil: it has no copy phase, or there was no handoff.
    public var wasReady: Bool?
    public var report: MigrationReport?
    public var observation: Observation?
    public var error: String?

    public init(
        user: Int, container: String, source: String, destination: String, handover: HandoverPolicy, decidedAt: Double,
        zoneAt: Double? = nil
    ) {
        (self.user, self.container, self.source, self.destination) = (user, container, source, destination)
        (self.handover, self.decidedAt, self.zoneAt) = (handover, decidedAt, zoneAt)
    }
}

/// A user's service over the whole run.
public struct MobilityUser: Codable, Sendable {
    /// The device's name, and the user's in the trace.
    public var device: String
    public var trace: String
    public var containers: [String]
    public var requests = 0
    public var answered = 0
    /// Answered after the deadline; nil: the service has none.
    public var late: Int?
    /// Outside handoffs and blackouts, milliseconds.
    public var largestGap = 0.0
    /// Of the requests while the service was *near*, on the host beside the device's access point; *far*, on another
    /// one; and of those due at a *handoff*: the device had no link, or the service stood still.
    public var latency: [LatencySummary] = []
    public var verdicts: [Verdict] = []

    public init(device: String, trace: String, containers: [String]) {
        (self.device, self.trace, self.containers) = (device, trace, containers)
    }
}

/// An event as it was played.
public struct PlayedEvent: Codable, Sendable {
    public var user: Int
    public var event: MobilityEvent
    /// What was done about it; empty: nothing.
    public var action: String

    public init(user: Int, event: MobilityEvent, action: String) {
        (self.user, self.event, self.action) = (user, event, action)
    }
}

public struct MobilityOutcome: Codable, Sendable {
    public var users: [MobilityUser] = []
    public var events: [PlayedEvent] = []
    public var handoffs: [MobilityHandoff] = []
    /// In the order in which they were decided.
    public var migrations: [MobilityMigration] = []
    /// Seconds of the trace that were left out, since nothing happened in them.
    public var skipped = 0.0

    public init() {}

    public var verdicts: [Verdict] {
        users.flatMap { user in
            user.verdicts.map { Verdict("\(user.device): \($0.name)", $0.passed, $0.detail) }
        }
    }
    public var passed: Bool {
        !users.isEmpty && users.allSatisfy { !$0.verdicts.isEmpty && $0.verdicts.allSatisfy(\.passed) }
            && !migrations.contains { $0.end == .failed }
    }
}

/// Where a user's service ran, seen from its device.
struct MobilityPlaces {
    /// The service was on another host than the one beside the device's access point.
    private(set) var far: [Range<Int64>] = []

    /// - Parameters:
    ///   - start: the host on which the service begins, and that of the device's first access point.
    ///   - devices: when the device joined an access point, and the host beside it.
    ///   - services: when the service was released on a host.
    init(start: String, devices: [(at: Int64, host: String)], services: [(at: Int64, host: String)]) {
        let changes = (devices.map { ($0.at, $0.host, true) } + services.map { ($0.at, $0.host, false) })
            .sorted { $0.0 < $1.0 }
        var (device, service, since) = (start, start, Int64?.none)
        for (at, host, isDevice) in changes {
            if isDevice { device = host } else { service = host }
            if device == service, let begin = since {
                if begin < at { far.append(begin..<at) }
                since = nil
            } else if device != service, since == nil {
                since = at
            }
        }
        if let since { far.append(since..<Int64.max) }
    }
}

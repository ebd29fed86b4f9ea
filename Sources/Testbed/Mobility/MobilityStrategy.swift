// When a service follows its user: what is to be done about each event. Decides only; `MobilityRun` acts.
import Migration

/// When a migration is decided.
public enum MobilityStrategy: String, Sendable, Hashable, Codable, CaseIterable {
    /// Never: the service stays where it is.
    case staying = "none"
    /// At the handoff: decided and handed over as soon as the technique can.
    case reactive
    /// At the entry of the migration zone; the handoff triggers the handover.
    case proactive
    /// So long before the expected handoff as the migration is expected to take; the handoff triggers the handover.
    case predicted

    /// A migration begins before the handoff, which triggers its handover.
    public var isAhead: Bool { self == .proactive || self == .predicted }
}

/// One user's service and what is wanted of it. Hosts are indices.
public struct ServiceMover: Sendable, Hashable {
    public enum Action: Sendable, Hashable {
        case start(to: Int, HandoverPolicy)
        case handOver
        case cancel
    }
    /// A migration that has been started and is not over.
    struct Pending: Sendable, Hashable {
        var to: Int
        var awaitsTrigger: Bool
        var isCancelled = false
    }

    public let strategy: MobilityStrategy
    /// The host of each access point.
    let hosts: [Int]
    /// Where the service runs.
    public private(set) var at: Int
    /// The host of the user's access point.
    public private(set) var userHost: Int
    /// The host of the access point that the user is expected at.
    private var expected: Int?
    private(set) var pending: Pending?

    /// The service runs on the host of the first access point.
    public init(_ strategy: MobilityStrategy, hosts: [Int], site: Int) {
        (self.strategy, self.hosts, at, userHost) = (strategy, hosts, hosts[site], hosts[site])
    }

    public var isMoving: Bool { pending != nil }
    /// The migration that is under way waits for the handoff.
    public var awaitsTrigger: Bool { pending?.awaitsTrigger ?? false }
    /// The migration that is under way has been cancelled.
    public var isCancelled: Bool { pending?.isCancelled ?? false }

    /// Takes an event, and says what is to be done now.
    public mutating func take(_ event: MobilityEvent) -> Action? {
        switch (event.kind, strategy) {
        case (.handoff, _): (userHost, expected) = (event.target.map { hosts[$0] } ?? userHost, nil)
        case (.zoneEntered, .proactive), (.leadReached, .predicted): expected = event.target.map { hosts[$0] }
        case (.turnedBack, _): expected = nil
        default: return nil
        }
        return nextAction()
    }

    /// The migration is over. After one that failed nothing is tried again before the next event.
    ///
    /// - Parameters:
    ///   - arrived: the service runs at the destination.
    public mutating func ended(arrived: Bool) -> Action? {
        guard let last = pending else { return nil }
        pending = nil
        if arrived { at = last.to }
        return arrived || last.isCancelled ? nextAction() : nil
    }

    /// The user's way has ended: what waits for a handoff waits in vain.
    public mutating func wayEnded() -> Action? {
        expected = nil
        guard let now = pending, now.awaitsTrigger, !now.isCancelled else { return nil }
        pending?.isCancelled = true
        return .cancel
    }

    /// Towards where the service ought to be; one migration at a time, so one to another host has to end first.
    private mutating func nextAction() -> Action? {
        guard strategy != .staying else { return nil }
        let wanted = expected ?? userHost
        guard let now = pending else {
            if wanted == at { return nil }
            pending = Pending(to: wanted, awaitsTrigger: expected != nil)
            return .start(to: wanted, expected != nil ? .atTrigger : .whenReady)
        }
        if now.isCancelled { return nil }
        if now.to != wanted {
            pending?.isCancelled = true
            return .cancel
        }
        if now.awaitsTrigger && expected == nil {
            pending?.awaitsTrigger = false
            return .handOver
        }
        return nil
    }
}

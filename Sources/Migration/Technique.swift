// What a user chooses: a technique is two choices, and a plan adds its parameters.

/// What happens before the handover.
public enum CopyPhase: String, Codable, Sendable, CaseIterable {
    /// Nothing: the container is frozen at once.
    case none
    /// Rounds on the clock: round *i* sends what was dirtied while round *i-1* was sent.
    case rounds
    /// Every memory change is sent as soon as it is noticed.
    case mirroring
}

/// What happens at the handover to the pages that the destination still lacks.
public enum RestPhase: String, Codable, Sendable, CaseIterable {
    /// The container stays frozen until they have arrived.
    case stopAndCopy
}

/// A migration technique by its name in the field.
public enum Technique: String, Codable, Sendable, CaseIterable {
    case cold
    case preCopy = "pre-copy"
    case migrror = "MiGrror"

    public var copy: CopyPhase {
        switch self {
        case .cold: .none
        case .preCopy: .rounds
        case .migrror: .mirroring
        }
    }
    public var rest: RestPhase { .stopAndCopy }

    /// Finds a technique by name, whatever its case and with or without the hyphen.
    public init?(name: String) {
        let plain = { (text: String) in text.lowercased().filter { $0 != "-" } }
        guard let found = Self.allCases.first(where: { plain($0.rawValue) == plain(name) }) else { return nil }
        self = found
    }
}

/// When the handover happens.
public enum HandoverPolicy: String, Codable, Sendable, CaseIterable {
    /// As soon as the technique can.
    case whenReady = "when-ready"
    /// At an instant given from outside (`apus handover`).
    case atTrigger = "at-trigger"
}

/// How memory changes are noticed.
public enum EventSource: String, Codable, Sendable, CaseIterable {
    /// By scans of the page table, spaced in time.
    case scan
    /// By page faults, which perf tells of; a scan says what changed.
    case faults
    /// Faults where they are to be had, several together, with a scan every 100 ms at least; else scans.
    case auto
}

/// A difference that a move makes and that some programs do not bear: it is refused unless it is accepted.
public enum Acceptance: String, Codable, Sendable, CaseIterable {
    /// Files get the destination's inode numbers, which SQLite remembers.
    case inodeNumbers = "inode-numbers"
}

/// A technique with all its parameters.
public struct MigrationPlan: Codable, Sendable {
    public var technique: Technique
    public var handover: HandoverPolicy = .whenReady
    /// The technique is ready when what is dirty and what the link has not taken yet can be sent in this time, in
    /// milliseconds, at the rate that was last seen. The same for every technique with a copy phase.
    public var readyWithin = 5.0
    /// How long passes back to back may go on between the wish to hand over and the freeze, in milliseconds; they end
    /// sooner when they get no shorter. 0: no run-up, the freeze begins at once and whatever is dirty or unsent is sent
    /// inside it.
    public var runUp = Self.usualRunUp
    /// Pre-copy: rounds before the last one, the first of which sends everything (1...1000).
    public var maxRounds = 30
    /// Pre-copy: least time from the start of one round to the next in milliseconds; nil: back to back.
    public var roundInterval: Double?
    /// Pre-copy: the same while it waits for a trigger once it is ready, has used up its rounds, or was stopped by one
    /// of the next two rules; nil: no more rounds.
    public var waitInterval: Double? = 100
    /// Pre-copy: rounds stop when no more pages than these are dirty; nil: no such rule.
    public var stopPages: Int?
    /// Pre-copy: rounds stop when one finds that many percent more dirty pages than the one before; nil: no such rule.
    public var stopGrowth: Double?
    /// MiGrror: dirty pages that make an event (1 or more); nil: whatever is found, and faults wake the engine by
    /// `usualEventPages`.
    public var eventPages: Int?
    /// MiGrror: least time between two syncs in milliseconds; nil: adaptive.
    public var minSpacing: Double?
    public var events: EventSource = .auto
    /// How long the handover may be postponed again and again, in seconds.
    public var postponeLimit = 10.0
    /// How long the container may stand still before the promise, in milliseconds; nil: as long as it takes. When it is
    /// reached the
    /// container runs on where it is, and the handover is tried again until `postponeLimit` is over.
    public var freezeLimit: Double?
    /// Differences that are accepted; nil: none.
    public var accept: Set<Acceptance>?

    /// Milliseconds: above λ = 1 no pass gets shorter.
    public static let usualRunUp = 2000.0
    /// Each wake-up costs the program some 20 µs, shared by the pages that caused it.
    public static let usualEventPages = 32

    public init(technique: Technique) {
        self.technique = technique
        // Without a copy phase all of the memory is sent while the container stands still.
        freezeLimit = technique.copy == .none ? nil : 1000
    }
}

extension MigrationPlan {
    /// Parameters out of range, each in words of its own; empty: none.
    public var mistakes: [String] {
        var found: [String] = []
        if !(1...1000).contains(maxRounds) { found.append("max rounds must be 1 to 1000, not \(maxRounds)") }
        if let roundInterval, !(roundInterval >= 0 && roundInterval <= 3_600_000) {
            found.append("round interval must be 0 to 3,600,000 ms, not \(roundInterval)")
        }
        if let waitInterval, !(waitInterval >= 0 && waitInterval <= 3_600_000) {
            found.append("wait interval must be 0 to 3,600,000 ms or none, not \(waitInterval)")
        }
        if !(readyWithin > 0 && readyWithin <= 3_600_000) {
            found.append("ready within must be above 0 and at most 3,600,000 ms, not \(readyWithin)")
        }
        if !(runUp >= 0 && runUp <= 60_000) { found.append("run-up must be 0 to 60,000 ms, on or off, not \(runUp)") }
        if let stopPages, !(0...1_000_000_000).contains(stopPages) {
            found.append("stop pages must be 0 to 1,000,000,000 or none, not \(stopPages)")
        }
        if let stopGrowth, !(stopGrowth >= 0 && stopGrowth <= 1_000_000) {
            found.append("stop growth must be 0 to 1,000,000 percent or none, not \(stopGrowth)")
        }
        if let eventPages, !(1...1_000_000).contains(eventPages) {
            found.append("event pages must be 1 to 1,000,000 or auto, not \(eventPages)")
        }
        if let minSpacing, !(minSpacing >= 0 && minSpacing <= 60_000) {
            found.append("min spacing must be 0 to 60,000 ms, not \(minSpacing)")
        }
        if let freezeLimit, !(freezeLimit >= 1 && freezeLimit <= 3_600_000) {
            found.append("freeze limit must be 1 to 3,600,000 ms or none, not \(freezeLimit)")
        }
        if !(postponeLimit >= 0 && postponeLimit <= 3600) {
            found.append("postpone limit must be 0 to 3600 s, not \(postponeLimit)")
        }
        return found
    }
}

// Everything that decides how a run goes. Two runs with equal parameters are repetitions of each other.
import Migration
import Testbed

public struct RunParameters: Hashable, Sendable {
    public var technique = EvaluatedTechnique.migrror
    public var workload = WorkloadKind.dirtier
    /// Bytes of state, of each container.
    public var memory: UInt64 = 128 << 20
    /// Workloads of this kind that run beside each other and are moved at the same time.
    public var containers = 1
    /// The backhaul's rate, each way.
    public var bandwidth = LinkRate("1gbit")!
    /// What delay adds to the backhaul's round trip, half of it each way, milliseconds. 0: a pair of interfaces,
    /// shaped.
    public var roundTrip = 0.0
    /// By which each frame's delay differs at most, milliseconds; at most half of the round trip.
    public var jitter = 0.0
    /// Percent of the backhaul's frames that are lost, each way.
    public var loss = 0.0
    /// dirtier: dirty rate over bandwidth (bytes of whole pages written a second / bytes a second), 0...10; of all
    /// containers together.
    public var lambda: Double? = 0.1
    /// dirtier: bytes of pages written a second by all containers together; it stands in for `lambda`, which follows
    /// from it.
    public var dirtyRate: UInt64?
    /// dirtier: percent of the memory that is written again.
    public var workingSet = 100
    /// dirtier: percent of a page that a write changes.
    public var share = 100
    /// dirtier: contiguous bytes written at once.
    public var writeSize: UInt64 = 4096
    /// dirtier: how the dirty rate changes within a period (seconds) around its mean.
    public var profile = DirtyProfile.constant
    public var profilePeriod = 1.0
    /// vehicular: reports a second of each vehicle; ar: frames a second; ycsb-redis, ycsb-memcached, distributed:
    /// requests a second; nil: the workload's default.
    public var rate: Double?
    /// ycsb-redis, ycsb-memcached: what is asked for, and of which keys.
    public var mix = KeyValueMix.a
    /// Of keys, or of the dirtier's pages; nil: the workload's own (zipf, uniform).
    public var distribution: AccessDistribution?
    /// vehicular.
    public var vehicles = 50
    /// vehicular, ar: how reports and poses travel; mixed: most vehicles use datagrams, the AR device too.
    public var transport = Transport.mixed
    public var handover = HandoverPolicy.whenReady
    /// At-trigger: seconds from the decision to the trigger.
    public var triggerAfter = 5.0
    /// At-trigger: seconds by which the trigger comes later at most, evenly spread; the same for all techniques in a
    /// repetition. A whole period of the profile, so that not every freeze meets the same phase of it.
    public var triggerJitter = 0.0
    /// The technique as the literature has it; nil: by the parameters below. The techniques of which it is no form have
    /// those.
    public var preset: TechniquePreset?
    /// Techniques with a copy phase: milliseconds.
    public var readyWithin = 5.0
    /// Techniques with a copy phase: milliseconds; 0: off.
    public var runUp = MigrationPlan.usualRunUp
    /// MiGrror.
    public var events = EventSource.auto
    /// Nil: whatever is found.
    public var eventPages: Double?
    /// Milliseconds; nil: adaptive.
    public var minSpacing: Double?
    /// Pre-copy.
    public var maxRounds = 30
    /// Milliseconds; nil: back to back.
    public var roundInterval: Double?
    /// Milliseconds, while it waits for a trigger; nil: no more rounds.
    public var waitInterval: Double? = 100
    /// Techniques with a copy phase: longest that a container may stand still before the promise, milliseconds; nil: as
    /// long as it takes.
    public var freezeLimit: Double? = 1000

    /// When services follow their users; nil: nobody moves.
    public var mobility: MobilityStrategy?
    /// Mobility: users, each with a service of its own.
    public var users = 3
    /// Mobility: "grid" for made-up ways, or a file.
    public var trace = Self.grid
    /// Mobility, made-up ways: metres a second, give or take 30 %.
    public var speed = 11.0
    /// Mobility, made-up ways: seconds.
    public var duration = 300.0
    /// Mobility: milliseconds without a link at a handoff.
    public var reconnection = 100.0

    static let grid = "grid"
    public init() {}
}

extension RunParameters {
    /// Bytes a second that the backhaul carries; nil: unlimited.
    public var bytesPerSecond: Double? { bandwidth.bitsPerSecond.map { Double($0) / 8 } }

    /// The backhaul, each way.
    public var backhaul: LinkQuality {
        var quality = LinkQuality()
        (quality.rate, quality.delay, quality.jitter, quality.loss) = (bandwidth, roundTrip / 2, jitter, loss)
        return quality
    }

    /// dirtier: pages of 4 KiB written a second, by all containers together.
    public var pagesPerSecond: UInt64 {
        if workload != .dirtier { return 0 }
        if let dirtyRate { return dirtyRate / 4096 }
        return UInt64((lambda ?? 0) * (bytesPerSecond ?? 0) / 4096)
    }

    /// The dirty rate over the bandwidth; nil: not known, or the link is unlimited.
    public var effectiveLambda: Double? {
        guard workload == .dirtier, let bytesPerSecond else { return nil }
        return Double(pagesPerSecond) * 4096 / bytesPerSecond
    }

    /// Seconds from the decision to the handover, about: until the trigger, or until what is dirtied while the rest is
    /// sent is little. At λ near 1 and above the rounds end it.
    var copyTime: Double {
        if handover == .atTrigger { return triggerAfter }
        let load = technique.copy == .none ? 0 : min(effectiveLambda ?? 0, 0.9)
        return Double(memory) * Double(containers) / (bytesPerSecond ?? 1e9) / (1 - load)
    }

    /// Seconds that a run takes, about, with its start, its fill and its verdict.
    func runTime(settle: Double) -> Double {
        if let mobility {
            // A user changes the access point about every 1,500 m; what lies between is left out.
            let rules = MobilityRules(), handoffs = max(1, speed * duration / 1500) * Double(users)
            return 15 + handoffs * (6 + (mobility.isAhead ? (rules.handoff - rules.zone) / speed : 0))
        }
        let filled = Double(memory) * Double(containers)
        return settle + 2.5 + filled / 400e6 + copyTime + triggerJitter / 2
    }

    /// Of each of the workloads.
    public var workloadOptions: WorkloadOptions {
        var options = WorkloadOptions(
            kind: workload, memory: memory, dirtyRate: pagesPerSecond / UInt64(containers), workingSet: workingSet,
            share: share)
        (options.rate, options.vehicles, options.transport) = (rate, vehicles, transport)
        (options.writeSize, options.profile, options.profilePeriod) = (writeSize, profile, profilePeriod)
        (options.mix, options.distribution) = (mix, distribution)
        return options
    }

    /// What one of the engine's techniques is called with.
    func migrationPlan(_ technique: Technique) -> MigrationPlan {
        var plan = MigrationPlan(technique: technique)
        plan.handover = handover
        (plan.events, plan.eventPages, plan.minSpacing) = (events, eventPages.map { Int($0) }, minSpacing)
        (plan.maxRounds, plan.roundInterval, plan.waitInterval) = (maxRounds, roundInterval, waitInterval)
        (plan.readyWithin, plan.runUp) = (readyWithin, runUp)
        if let preset, preset.technique == technique { plan.apply(preset) }
        if technique.copy != .none { plan.freezeLimit = freezeLimit }
        return plan
    }

    /// With what does not matter here at its default, so that runs that do the same are the same.
    var normalised: RunParameters {
        var result = self
        for parameter in Parameter.allCases {
            let definition = parameter.definition
            if !definition.applies(self) { definition.reset(&result) }
        }
        // When the handover comes is the strategy's matter, and where nothing is migrated the technique is none.
        if let mobility { result.handover = mobility.isAhead ? .atTrigger : .whenReady }
        if mobility == .staying { result.technique = .cold }
        return result
    }

    /// The parameters as text, in a fixed order: the name of a point in the store.
    public var key: String {
        Parameter.allCases.compactMap { parameter in parameter.text(self).map { "\(parameter.rawValue)=\($0)" } }
            .joined(separator: " ")
    }
}

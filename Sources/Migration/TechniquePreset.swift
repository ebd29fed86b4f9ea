// Techniques as the literature and other implementations have them, as parameters of ours.

/// The parameters that make a technique what others describe by its name. None of them has a run-up, which is ours.
public enum TechniquePreset: String, Codable, Sendable, CaseIterable {
    /// Pre-copy until the dirty pages are below a threshold: Liu et al., "Performance and energy modeling for live
    /// migration of virtual machines" (HPDC 2011). The threshold is a parameter of theirs; here 1 MiB.
    case liu
    /// Pre-copy of at most 5 rounds, until 50 pages are dirty: Xen's rule (tools/libs/guest, xg_sr_save.c).
    case xen
    /// Pre-copy of at most 8 rounds, until 64 pages are dirty or they grow by a tenth: CRIU's P.Haul.
    case phaul
    /// Pre-copy until the expected downtime is within 300 ms: QEMU's default `downtime-limit`.
    case qemu
    /// Pre-copy of one dump before the last one: Puliafito et al., "Container migration in the fog: a performance
    /// evaluation" (Sensors 2019).
    case onePreDump = "one-pre-dump"
    /// Pre-copy on the clock: a round each `roundInterval`, 100 ms if it is not given, until the handover is triggered.
    case fixedInterval = "fixed-interval"
    /// MiGrror as Rezazadeh and Lutfiyya publish it (2022, 2023): a sync at every change, with no least spacing. They
    /// leave open how large a change is: here a page.
    case published

    public var technique: Technique { self == .published ? .migrror : .preCopy }
}

extension MigrationPlan {
    /// Takes over the parameters of a preset; what it says nothing about stays.
    public mutating func apply(_ preset: TechniquePreset) {
        runUp = 0
        if preset.technique == .preCopy { waitInterval = nil }
        switch preset {
        case .liu: (stopPages, maxRounds, readyWithin) = (256, 1000, Self.never)
        case .xen: (stopPages, maxRounds, readyWithin) = (50, 5, Self.never)
        case .phaul: (stopPages, stopGrowth, maxRounds, readyWithin) = (64, 10, 8, Self.never)
        case .qemu: (readyWithin, maxRounds) = (300, 1000)
        case .onePreDump: (maxRounds, readyWithin) = (1, Self.never)
        case .fixedInterval:
            let interval = roundInterval ?? 100
            (roundInterval, waitInterval, maxRounds, readyWithin) = (interval, interval, 1000, Self.never)
        case .published: (eventPages, minSpacing) = (1, 0)
        }
    }

    /// Milliseconds in which nothing can be sent: another rule decides.
    private static let never = 0.001
}

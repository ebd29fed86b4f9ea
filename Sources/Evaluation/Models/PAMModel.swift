// Migration with CRIU as measured by others: the baseline for everything that freezes, dumps and restores.

/// PAM: Calagna et al., IEEE TNSM 2024, a model fitted to measurements of CRIU called by Podman.
///
///     T_predump = a1·a2·(β + φp + G·ζ·M + δ + Λ·M)
///     T_dump    = a1·a2·(β + φd + G·ξ·M)
///     T_restore = a3·a4·(ψ + ω·M)
///     downtime  = T_dump + V/L + T_restore
///
/// Times are milliseconds, sizes bytes. The factors a1…a4 are what the container engine adds to CRIU. With all four at
/// 1 an empty state takes β + φd + ψ = 84 + 40 + 60 = 184 ms; with Podman's, 1.92·124 + 6.27·60 = 614.28 ms.
public struct PAMModel: Sendable, Hashable {
    /// Podman's first factor on dumps; 1: CRIU alone.
    public var a1 = 1.0
    /// Podman's second factor on dumps; 1: CRIU alone.
    public var a2 = 1.0
    /// Podman's first factor on restores; 1: CRIU alone.
    public var a3 = 1.0
    /// Podman's second factor on restores; 1: CRIU alone.
    public var a4 = 1.0
    /// β: fixed part of dump and pre-dump, ms.
    public var beta = 84.0
    /// φp: fixed part of a pre-dump, ms.
    public var phiPredump = 6.0
    /// φd: fixed part of a dump, ms.
    public var phiDump = 40.0
    /// ζ: weight of looking through the memory in a pre-dump.
    public var zeta = 1.0
    /// G: ms a byte.
    public var gain = 1e-7
    /// δ: fixed part of writing a pre-dump, ms.
    public var delta = 1.8
    /// Λ: writing a pre-dump, ms a byte.
    public var writing = 3e-6
    /// ψ: fixed part of a restore, ms.
    public var psi = 60.0
    /// ω: restoring, ms a byte.
    public var omega = 8e-7
    /// ξ at its greatest. G·30 = Λ: a dump that has to write everything costs as much a byte as a pre-dump's writing.
    public var greatestXi = 30.0

    /// CRIU called alone.
    public static let criu = PAMModel()
    /// CRIU called by Podman, as it was measured.
    public static let podman = {
        var model = PAMModel()
        (model.a1, model.a2, model.a3, model.a4) = (1.6, 1.2, 3.3, 1.9)
        return model
    }()

    public init() {}

    /// Time of a pre-dump of `size` bytes, in milliseconds.
    public func predump(_ size: Double) -> Double {
        a1 * a2 * (beta + phiPredump + gain * zeta * size + delta + writing * size)
    }

    /// Time of a dump, in milliseconds.
    ///
    /// - Parameter dirtyShare: share of the pages that have to be written, 0 to 1: all without a pre-dump. ξ grows with
    ///   the dirty rate; that it grows with this share in proportion is our reading of it.
    public func dump(_ size: Double, dirtyShare: Double = 1) -> Double {
        a1 * a2 * (beta + phiDump + gain * greatestXi * dirtyShare * size)
    }

    /// Time of a restore, in milliseconds.
    public func restore(_ size: Double) -> Double { a3 * a4 * (psi + omega * size) }

    /// Downtime of a state without memory, in milliseconds.
    public var floor: Double { dump(0) + restore(0) }

    /// Freeze, dump, send everything, restore: downtime in milliseconds, which the migration takes too.
    ///
    /// - Parameter bandwidth: L, bytes a second.
    public func cold(size: Double, bandwidth: Double) -> Double {
        dump(size) + sendingTime(size, bandwidth) + restore(size)
    }

    /// What a migration with one pre-dump takes.
    public struct PredumpOutcome: Sendable, Hashable {
        /// In milliseconds.
        public var migrationTime: Double
        /// In milliseconds.
        public var downtime: Double
        /// Bytes dirtied since the pre-dump, which are sent in the freeze.
        public var rest: Double
    }

    /// One pre-dump is made and sent, then what was dirtied meanwhile is dumped and sent in the freeze.
    public func withPredump(
        size: Double, bandwidth: Double, dirtyRate: Double, workingSet: Double? = nil
    ) -> PredumpOutcome {
        let before = predump(size) + sendingTime(size, bandwidth)
        let rest = min(dirtyRate * before / 1000, workingSet ?? size, size)
        let downtime =
            dump(size, dirtyShare: size > 0 ? rest / size : 0) + sendingTime(rest, bandwidth) + restore(size)
        return PredumpOutcome(migrationTime: before + downtime, downtime: downtime, rest: rest)
    }
}

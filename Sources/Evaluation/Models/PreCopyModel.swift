// Pre-copy in rounds, after Liu et al., "Performance and energy modeling for live migration of virtual machines"
// (2011).
import Glibc

/// Rounds that each send what was dirtied during the one before.
///
/// With λ = `dirtyRate` / `bandwidth`, round *i* sends V_i = M·λ^i, at most the working set. The first *n* rounds are
/// sent while the program runs, round *n* while it is frozen, where n = ⌈log(V_th / M) / log λ⌉ is the first round that
/// fits the downtime limit, V_th = limit·R. Then V = M(1 - λ^(n+1)) / (1 - λ), T = V / R and downtime = V_n / R +
/// resume. One round at least is sent while the program runs; λ ≥ 1 does not converge, and `maxRounds` ends it.
///
/// That is with a pass that costs nothing beside its bytes, and pages that are written once in a round. Both can be
/// told: a round then takes V_i/R + o, in which D·(V_i/R + o) bytes are written; of a working set W whose pages are
/// written at random W·(1 - exp(-written/W)) are dirty after that.
///
/// Left out: rates that vary.
public struct PreCopyModel: Sendable {
    /// M: the state in bytes.
    public var size: Double
    /// R: bytes a second that reach the destination, above 0.
    public var bandwidth: Double
    /// D: bytes of pages dirtied a second.
    public var dirtyRate: Double
    /// The most that can be dirty at once in bytes; nil: all of it. Written pages that are written again count once.
    public var workingSet: Double?
    /// The round that can be sent in this time is the last one, in milliseconds.
    public var downtimeLimit = 5.0
    /// Rounds before the last one, 1 or more.
    public var maxRounds = 30
    /// Fixed part of the downtime, in milliseconds.
    public var resume = 0.0
    /// o: what a round costs beside its bytes, in milliseconds.
    public var passOverhead = 0.0
    /// Pages are written at random, some of them more than once in a round; else each of them once.
    public var writesAtRandom = false

    public init(size: Double, bandwidth: Double, dirtyRate: Double) {
        (self.size, self.bandwidth, self.dirtyRate) = (size, bandwidth, dirtyRate)
    }

    public struct Outcome: Sendable, Hashable, Codable {
        /// Bytes that each round sends, the last one while the program is frozen.
        public var rounds: [Double]
        /// Whether the last round fits the downtime limit; if not, the rounds were used up.
        public var converged: Bool
        /// T: time to send all rounds, in milliseconds.
        public var transferTime: Double
        /// In milliseconds.
        public var downtime: Double

        /// V in bytes.
        public var volume: Double { rounds.reduce(0, +) }
        /// n: rounds while the program runs.
        public var liveRounds: Int { rounds.count - 1 }
    }

    /// λ.
    public var load: Double { dirtyRate / bandwidth }

    public var outcome: Outcome {
        let bound = Swift.min(workingSet ?? size, size)
        let threshold = downtimeLimit / 1000 * bandwidth
        // What is dirty after a round that sent as much.
        func next(_ sent: Double) -> Double {
            let written = load * sent + dirtyRate * passOverhead / 1000
            return writesAtRandom && bound > 0 ? bound * (1 - exp(-written / bound)) : Swift.min(bound, written)
        }
        var rounds = [size, next(size)]
        while rounds[rounds.count - 1] > threshold, rounds.count <= maxRounds {
            rounds.append(next(rounds[rounds.count - 1]))
        }
        let last = rounds[rounds.count - 1]
        return Outcome(
            rounds: rounds, converged: last <= threshold,
            transferTime: sendingTime(rounds.reduce(0, +), bandwidth) + passOverhead * Double(rounds.count - 1),
            downtime: sendingTime(last, bandwidth) + resume)
    }
}

/// The milliseconds that bytes take at a rate in bytes a second.
func sendingTime(_ bytes: Double, _ rate: Double) -> Double { bytes <= 0 ? 0 : bytes / rate * 1000 }

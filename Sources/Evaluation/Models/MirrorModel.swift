// MiGrror at constant rates, in closed form. Our derivation: the authors' equations are not public.
import Glibc

/// A mirror that sends each event as soon as it is noticed.
///
/// While the first copy is sent, the program dirties memory; the mirror is in sync when that, and what was dirtied
/// meanwhile, is sent: after (M/b) / (1 - λ), where a working set bounds what the first copy leaves dirty. Then
/// downtime = U/b + RTT + context + switch + resume. U, what is unsent at the handover, is an event at most; a handover
/// that begins right after an event was sent finds only what was dirtied meanwhile.
///
/// Left out: rates that vary, several containers (`MirrorQueueModel` has both), what tracking costs the program.
public struct MirrorModel: Sendable {
    /// M: the state in bytes.
    public var size: Double
    /// b: bytes a second that reach the destination, above 0.
    public var bandwidth: Double
    /// d: bytes of pages dirtied a second.
    public var dirtyRate: Double
    /// The most that can be dirty at once in bytes; nil: all of it.
    public var workingSet: Double?
    /// Bytes that make an event; what is dirtied until the next sync if that is more. Above 0.
    public var eventSize = 4096.0
    /// o: what a sync costs beside its bytes, in milliseconds.
    public var eventOverhead = 0.0
    /// Before a handover, passes follow each other until one takes less than this, in milliseconds; nil: none do.
    public var runUp: Double?
    /// Pages are written at random, some of them more than once before the first copy is sent; else each of them once.
    public var writesAtRandom = false
    /// RTT, context, switch and resume together, in milliseconds.
    public var fixed = 0.0

    public init(size: Double, bandwidth: Double, dirtyRate: Double) {
        (self.size, self.bandwidth, self.dirtyRate) = (size, bandwidth, dirtyRate)
    }

    /// λ, with what the syncs cost: d/b + o·d/s. From 1 on the mirror cannot keep up.
    public var load: Double { dirtyRate / bandwidth + eventOverhead / 1000 * dirtyRate / eventSize }
    public var keepsUp: Bool { load < 1 }

    private var bound: Double { Swift.min(workingSet ?? size, size) }
    /// Bytes that are dirty when the first copy is sent.
    private var afterCopy: Double {
        let written = dirtyRate / bandwidth * size
        return writesAtRandom && bound > 0 ? bound * (1 - exp(-written / bound)) : Swift.min(bound, written)
    }
    /// Bytes sent from then until the mirror is in sync: what is dirty, what is dirtied while that is sent, and so on.
    private var caughtUp: Double { keepsUp ? afterCopy / (1 - load) : 0 }

    /// In milliseconds; nil: never.
    public var inSync: Double? {
        guard keepsUp else { return nil }
        return sendingTime(size + caughtUp, bandwidth) + caughtUp / eventSize * eventOverhead
    }

    /// Greatest U in bytes, at a handover at any instant: an event; of a mirror that does not keep up, all that can be
    /// dirty at once.
    public var outstanding: Double { keepsUp ? Swift.min(bound, eventSize) : afterCopy }
    /// U in bytes at a handover when ready: what is dirtied while an event is sent, λ events; or the same as above.
    public var outstandingWhenReady: Double {
        guard keepsUp else { return afterCopy }
        return Swift.min(bound, eventSize * load, runUp.map { $0 / 1000 * bandwidth } ?? .infinity)
    }

    /// When the handover begins at the earliest, in milliseconds: in sync, or with the first copy sent if that is never
    /// reached.
    public var handover: Double { inSync ?? sendingTime(size, bandwidth) }

    /// Greatest downtime of a handover at any instant, in milliseconds.
    public var downtime: Double { sendingTime(outstanding, bandwidth) + fixed }
    /// Downtime of a handover when ready, in milliseconds.
    public var downtimeWhenReady: Double { sendingTime(outstandingWhenReady, bandwidth) + fixed }

    /// Bytes sent with a handover when ready: the first copy, what was dirtied since, the rest in the freeze.
    public var volume: Double { size + caughtUp + outstandingWhenReady }
}

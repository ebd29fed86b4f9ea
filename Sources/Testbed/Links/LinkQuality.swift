// What a link does to what passes through it, in one direction.

/// The quality of one direction of a link. The defaults are a link that does nothing.
public struct LinkQuality: Sendable, Hashable, Codable {
    public var rate = LinkRate.unlimited
    /// One way, milliseconds (0...10,000).
    public var delay = 0.0
    /// Each frame's delay differs from `delay` by at most this, uniformly, milliseconds (0...`delay`). Frames stay in order.
    public var jitter = 0.0
    /// Percent of the frames that are dropped (0...100).
    public var loss = 0.0
    /// Percent of the frames that are let through at once, before those that wait (0...100); means something with `delay` only.
    public var reorder = 0.0
    /// Most bytes that wait for the rate; nil: 50 ms at the rate, at least 64 KiB.
    public var queue: UInt64?

    public init() {}

    /// Whether tc's shapers can do it: a rate alone.
    public var isRateOnly: Bool { delay == 0 && jitter == 0 && loss == 0 && reorder == 0 }
}

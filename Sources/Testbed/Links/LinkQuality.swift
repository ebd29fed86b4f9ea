// What a link does to what passes through it, in one direction.

/// The quality of one direction of a link. The defaults are a link that does nothing.
public struct LinkQuality: Sendable, Hashable, Codable {
    public var rate = LinkRate.unlimited
    /// One way, milliseconds (0...10,000).
    public var delay = 0.0
    /// Each frame's delay differs from `delay` by at most this, uniformly, milliseconds (0...`delay`). Frames stay in
    /// order.
    public var jitter = 0.0
    /// Percent of the frames that are dropped (0...100).
    public var loss = 0.0
    /// Percent of the frames that are let through at once, before those that wait (0...100); means something with
    /// `delay` only.
    public var reorder = 0.0
    /// Most bytes that wait for the rate; nil: 50 ms at the rate, at least 64 KiB.
    public var queue: UInt64?

    public init() {}

    /// Whether tc's shapers can do it: a rate alone.
    public var isRateOnly: Bool { delay == 0 && jitter == 0 && loss == 0 && reorder == 0 }

    /// `queue`, or what stands for it; nil: without a rate nothing waits.
    var queueLimit: UInt64? {
        guard let rate = rate.bitsPerSecond else { return nil }
        return queue ?? max(65536, rate / 8 / 20)
    }

    /// The first thing that is out of its range, in words; nil: all is well.
    public var mistake: String? {
        if !(0...LinkQuality.longestDelay).contains(delay) { return "a delay of \(plain(delay)) ms: 0 to 10000" }
        if !(0...delay).contains(jitter) {
            return "a jitter of \(plain(jitter)) ms: from 0 to the delay, here \(plain(delay)) ms"
        }
        if !(0...100).contains(loss) { return "a loss of \(plain(loss)) percent: 0 to 100" }
        if !(0...100).contains(reorder) { return "\(plain(reorder)) percent reordered: 0 to 100" }
        if let queue, !LinkQuality.queues.contains(queue) {
            return "a queue of \(queue) bytes: 1500 to 1 GiB"
        }
        return nil
    }

    static let longestDelay = 10_000.0
    static let queues: ClosedRange<UInt64> = 1500...1 << 30
}

/// A way along a link.
public enum LinkDirection: String, Sendable, Codable, CaseIterable {
    /// From end `a` to end `b`.
    case forward
    case backward
}

/// Some properties of a link that become others; those that are nil stay as they are.
public struct LinkChange: Sendable, Hashable, Codable {
    public var rate: LinkRate?
    public var delay: Double?
    public var jitter: Double?
    public var loss: Double?
    public var reorder: Double?
    public var queue: UInt64?

    public init() {}
    /// All of a quality but a nil queue.
    public init(_ quality: LinkQuality) {
        (rate, delay, jitter) = (quality.rate, quality.delay, quality.jitter)
        (loss, reorder, queue) = (quality.loss, quality.reorder, quality.queue)
    }

    public var isEmpty: Bool { self == LinkChange() }

    /// The quality that results, which the caller checks (`mistake`). A jitter that is not named shrinks to the delay.
    public func applied(to quality: LinkQuality) -> LinkQuality {
        var result = quality
        if let rate { result.rate = rate }
        if let delay {
            result.delay = delay
            result.jitter = min(result.jitter, delay)
        }
        if let jitter { result.jitter = jitter }
        if let loss { result.loss = loss }
        if let reorder { result.reorder = reorder }
        if let queue { result.queue = queue }
        return result
    }
}

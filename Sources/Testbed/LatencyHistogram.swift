/// Counts times in buckets whose width is at most 1/64 of their value (the idea of HdrHistogram): any number of
/// samples in constant memory, quantiles to 1.6 %.
public struct LatencyHistogram: Sendable {
    private static let bits = 6
    // Values below 64 each have a bucket; above, every power of two has 64.
    private var buckets = [UInt64](repeating: 0, count: (64 - bits + 1) << bits)
    public private(set) var count: UInt64 = 0
    public private(set) var largest: Int64 = 0
    private var sum = 0.0

    public init() {}

    private static func index(_ value: UInt64) -> Int {
        if value < 1 << bits { return Int(value) }
        let power = 63 - value.leadingZeroBitCount - bits
        return (power + 1) << bits + Int(value >> UInt64(power)) - 1 << bits
    }
    /// The largest value of a bucket.
    private static func top(_ index: Int) -> Int64 {
        if index < 1 << bits { return Int64(index) }
        let power = index >> bits - 1
        let low = (index & (1 << bits - 1) + 1 << bits) << power
        return Int64(clamping: UInt64(low) &+ (1 << UInt64(power)) &- 1)
    }

    /// Negative values count as 0.
    public mutating func record(_ value: Int64) {
        let value = max(0, value)
        buckets[Self.index(UInt64(value))] += 1
        count += 1
        sum += Double(value)
        largest = max(largest, value)
    }

    public mutating func merge(_ other: LatencyHistogram) {
        for index in buckets.indices { buckets[index] += other.buckets[index] }
        count += other.count
        sum += other.sum
        largest = max(largest, other.largest)
    }

    public var mean: Double { count == 0 ? 0 : sum / Double(count) }

    /// A share `p` (0...1) of the samples is at most this; 0 without samples.
    public func quantile(_ p: Double) -> Int64 {
        let wanted = UInt64((p * Double(count)).rounded(.up))
        var seen: UInt64 = 0
        for index in buckets.indices {
            seen += buckets[index]
            if seen >= max(1, wanted) { return min(Self.top(index), largest) }
        }
        return largest
    }
}

// What measured values are summed up to.

/// Values of one quantity, sorted. NaN is no value: it is left out and counted in `omitted`.
public struct Sample: Sendable, Hashable {
    /// In ascending order.
    public let sorted: [Double]
    /// Values that were NaN.
    public let omitted: Int

    public init(_ values: [Double]) {
        sorted = values.filter { !$0.isNaN }.sorted()
        omitted = values.count - sorted.count
    }

    public var count: Int { sorted.count }
    public var isEmpty: Bool { sorted.isEmpty }
    /// The smallest value; NaN of nothing, like all that follows.
    public var min: Double { sorted.first ?? .nan }
    public var max: Double { sorted.last ?? .nan }
    public var mean: Double { isEmpty ? .nan : sorted.reduce(0, +) / Double(count) }
    /// The middle value, or the mean of the two in the middle.
    public var median: Double { quantile(0.5) }

    /// The quantile of type 7 (Hyndman and Fan, The American Statistician 1996; the default of R and NumPy): linear
    /// between the values around position (n - 1)·fraction, counted from 0.
    ///
    /// - Parameter fraction: 0 (the minimum) to 1 (the maximum); NaN outside.
    public func quantile(_ fraction: Double) -> Double {
        guard !isEmpty, (0...1).contains(fraction) else { return .nan }
        let position = fraction * Double(count - 1)
        let below = Int(position)
        let share = position - Double(below)
        // Not by adding a difference where it is not needed: that of two infinities is NaN.
        if share == 0 || sorted[below] == sorted[below + 1] { return sorted[below] }
        return sorted[below] + share * (sorted[below + 1] - sorted[below])
    }
}

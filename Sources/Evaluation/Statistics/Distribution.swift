// How values are distributed, for plots.

/// The empirical distribution function: for each value that occurs, the share of values that are not above it.
public struct Distribution: Sendable {
    public struct Point: Sendable, Hashable, Codable {
        public var value: Double
        /// Above 0, at most 1.
        public var fraction: Double
    }

    /// A point for each distinct value, in ascending order; the last one's fraction is 1.
    public let points: [Point]

    /// NaN is left out.
    public init(_ values: [Double]) {
        let sorted = Sample(values).sorted
        points = sorted.indices.compactMap { index in
            if index + 1 < sorted.count, sorted[index + 1] == sorted[index] { return nil }
            return Point(value: sorted[index], fraction: Double(index + 1) / Double(sorted.count))
        }
    }

    /// The share of values that are at most `value`, 0 to 1.
    public func fraction(atMost value: Double) -> Double {
        points.last { $0.value <= value }?.fraction ?? 0
    }
}

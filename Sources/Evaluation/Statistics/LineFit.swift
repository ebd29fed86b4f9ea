// A straight line through measurements, and how well it fits.

/// The line with the least squares of vertical deviations.
public struct LineFit: Sendable, Hashable, Codable {
    public var slope: Double
    /// The line's value at x = 0.
    public var intercept: Double
    /// R²: the share of the values' variance that the line explains, at most 1.
    public var determination: Double
    /// Median of |line - value| / |value| over the points whose value is not 0; nil if there are none.
    public var medianRelativeError: Double?
    /// The greatest of them.
    public var maximumRelativeError: Double?
    /// Points that were fitted.
    public var count: Int

    /// nil for fewer than two places. Points with a coordinate that is not a finite number are left out.
    public init?(_ points: [(x: Double, y: Double)]) {
        let points = points.filter { $0.x.isFinite && $0.y.isFinite }
        let number = Double(points.count)
        let centre = (x: points.reduce(0) { $0 + $1.x } / number, y: points.reduce(0) { $0 + $1.y } / number)
        let spread = points.reduce(0) { $0 + ($1.x - centre.x) * ($1.x - centre.x) }
        guard points.count > 1, spread > 0, spread.isFinite else { return nil }
        let slope = points.reduce(0) { $0 + ($1.x - centre.x) * ($1.y - centre.y) } / spread
        let intercept = centre.y - slope * centre.x
        (self.slope, self.intercept, count) = (slope, intercept, points.count)

        let deviations = points.map { slope * $0.x + intercept - $0.y }
        let unexplained = deviations.reduce(0) { $0 + $1 * $1 }
        let total = points.reduce(0) { $0 + ($1.y - centre.y) * ($1.y - centre.y) }
        // Values that are all equal have no variance, and the line is exact.
        determination = total > 0 ? 1 - unexplained / total : 1
        let errors = Sample(zip(points, deviations).filter { $0.0.y != 0 }.map { abs($0.1 / $0.0.y) })
        if !errors.isEmpty { (medianRelativeError, maximumRelativeError) = (errors.median, errors.max) }
    }

    public func value(at x: Double) -> Double { slope * x + intercept }
}

// What a benchmark measures: values, what they are summed up to, and what they ought to be.

/// Measured values of one kind.
public struct Figure: Codable, Sendable {
    /// What the values are held against.
    public struct Aim: Codable, Sendable {
        public enum Statistic: String, Codable, Sendable { case median, worst, each }
        public var statistic: Statistic
        /// Whether `limit` is a floor rather than a ceiling.
        public var atLeast = false
        public var limit: Double
    }

    public var name: String
    public var unit: String
    public var values: [Double]
    public var aim: Aim?
    /// Digits after the point when shown.
    public var digits: Int

    public init(_ name: String, _ unit: String, _ values: [Double], digits: Int = 2, aim: Aim? = nil) {
        (self.name, self.unit, self.values, self.digits, self.aim) = (name, unit, values, digits, aim)
    }

    public var median: Double { values.median }
    public var min: Double { values.min() ?? .nan }
    public var max: Double { values.max() ?? .nan }

    /// nil: there is no aim, or nothing was measured.
    public var isMet: Bool? {
        guard let aim, !values.isEmpty else { return nil }
        let value =
            switch aim.statistic {
            case .median: median
            case .worst, .each: aim.atLeast ? min : max
            }
        return aim.atLeast ? value >= aim.limit : value <= aim.limit
    }

    private enum Keys: String, CodingKey { case name, unit, values, median, min, max, aim, met, digits }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Keys.self)
        try container.encode(name, forKey: .name)
        try container.encode(unit, forKey: .unit)
        try container.encode(values, forKey: .values)
        try container.encode(digits, forKey: .digits)
        try container.encodeIfPresent(aim, forKey: .aim)
        if !values.isEmpty {
            try container.encode(median, forKey: .median)
            try container.encode(min, forKey: .min)
            try container.encode(max, forKey: .max)
        }
        try container.encodeIfPresent(isMet, forKey: .met)
    }
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: Keys.self)
        name = try container.decode(String.self, forKey: .name)
        unit = try container.decode(String.self, forKey: .unit)
        values = try container.decode([Double].self, forKey: .values)
        digits = try container.decode(Int.self, forKey: .digits)
        aim = try container.decodeIfPresent(Aim.self, forKey: .aim)
    }
}

extension Figure.Aim {
    static func median(atMost limit: Double) -> Self { .init(statistic: .median, limit: limit) }
    static func median(atLeast limit: Double) -> Self { .init(statistic: .median, atLeast: true, limit: limit) }
    static func worst(atMost limit: Double) -> Self { .init(statistic: .worst, limit: limit) }
    /// For figures of one value each, and for what no repetition may exceed.
    static func each(atMost limit: Double) -> Self { .init(statistic: .each, limit: limit) }
}

extension [Double] {
    /// The middle one, or the mean of the two in the middle; NaN of nothing.
    var median: Double {
        let sorted = sorted()
        guard !sorted.isEmpty else { return .nan }
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }
}

/// The straight line through points with the least squares of deviations; nil for fewer than two places.
func fitLine(_ points: [(x: Double, y: Double)]) -> (slope: Double, start: Double)? {
    let count = Double(points.count)
    let (x, y) = (points.reduce(0) { $0 + $1.x } / count, points.reduce(0) { $0 + $1.y } / count)
    let spread = points.reduce(0) { $0 + ($1.x - x) * ($1.x - x) }
    guard points.count > 1, spread > 0 else { return nil }
    let slope = points.reduce(0) { $0 + ($1.x - x) * ($1.y - y) } / spread
    return (slope, y - slope * x)
}

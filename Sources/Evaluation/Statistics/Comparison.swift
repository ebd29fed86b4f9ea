// One quantity of two techniques at one point: how they differ, how sure that is, and whether it matters.

/// Two samples compared, with the blocks in which they were measured.
public struct Comparison: Sendable {
    /// What is said of a difference.
    public enum Finding: String, Sendable, Codable {
        /// The interval of the difference leaves out 0, on this side.
        case less, more
        /// The whole 90 % interval lies within the margin: no difference that matters (two one-sided tests at 5 %,
        /// Schuirmann 1987).
        case equivalent
        case undecided
    }

    /// A difference within this many milliseconds, or this share of the second's median, does not matter, whichever is
    /// more.
    public static let margin = (milliseconds: 0.5, share: 0.1)
    /// With fewer values on either side nothing is shown.
    public static let leastValues = 5

    private let first, second: [[Double]]
    public let medians: (first: Double, second: Double)
    /// Of the medians, first less second, and its 95 % interval.
    public let difference: Double
    public let interval: ConfidenceInterval?
    /// What of a difference does not matter, in the values' unit.
    private let margin: Double

    /// - Parameters:
    ///   - first, second: values by block.
    ///   - isTime: they are milliseconds; else only the share of the margin counts.
    public init(_ first: [[Double]], _ second: [[Double]], isTime: Bool = true) {
        (self.first, self.second) = (first, second)
        medians = (Sample(first.flatMap(\.self)).median, Sample(second.flatMap(\.self)).median)
        difference = medians.first - medians.second
        margin = max(isTime ? Self.margin.milliseconds : 0, Self.margin.share * abs(medians.second))
        interval = Self.intervalOfDifference(first, second, level: 0.95)
    }

    /// Of values that were measured in one block.
    public init(_ first: [Double], _ second: [Double], isTime: Bool = true) {
        self.init([first], [second], isTime: isTime)
    }

    private static func intervalOfDifference(_ first: [[Double]], _ second: [[Double]], level: Double)
        -> ConfidenceInterval?
    {
        Bootstrap(level: level, resamples: 2000).interval(blocks: first, second) {
            Sample($0).median - Sample($1).median
        }
    }

    /// Of the medians, first over second, and its 95 % interval.
    public var ratio: Double { medians.first / medians.second }
    public var ratioInterval: ConfidenceInterval? {
        Bootstrap(resamples: 2000).interval(blocks: first, second) { Sample($0).median / Sample($1).median }
    }

    /// Whether there are values enough to show anything.
    public var isJudged: Bool { min(first.joined().count, second.joined().count) >= Self.leastValues }

    /// -1: the first is shown to be less; 1: more; 0: neither is shown.
    public var sign: Int {
        guard let interval, isJudged else { return 0 }
        return interval.lower > 0 ? 1 : interval.upper < 0 ? -1 : 0
    }

    public var finding: Finding {
        if sign != 0 { return sign > 0 ? .more : .less }
        guard isJudged, let narrow = Self.intervalOfDifference(first, second, level: 0.9) else { return .undecided }
        return narrow.lower > -margin && narrow.upper < margin ? .equivalent : .undecided
    }

    /// Whether the difference is larger than the margin.
    public var isRelevant: Bool { abs(difference) > margin }

    /// "+1.30 [0.95, 1.72]".
    var text: String {
        (difference > 0 ? "+" : "") + measured(difference)
            + (interval.map { " [\(measured($0.lower)), \(measured($0.upper))]" } ?? "")
    }
}

/// Holm's step-down adjustment (1979) of the probabilities of one family of tests: an adjusted one below 0.05 is
/// rejected with the family's error at 5 %. In the order given.
public func holm(_ probabilities: [Double]) -> [Double] {
    var (adjusted, largest) = (probabilities, 0.0)
    let order = probabilities.indices.sorted { probabilities[$0] < probabilities[$1] }
    for (position, index) in order.enumerated() {
        largest = max(largest, min(1, Double(probabilities.count - position) * probabilities[index]))
        adjusted[index] = largest
    }
    return adjusted
}

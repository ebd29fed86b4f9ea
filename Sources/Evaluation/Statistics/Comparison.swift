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

    /// A difference within this many milliseconds, or this share of the second's median, does not matter, whichever is more.
    public static let margin = (milliseconds: 0.5, share: 0.1)
    /// With fewer values on either side nothing is shown.
    public static let leastValues = 5

    public var medians: (first: Double, second: Double)
    /// Of the medians, first over second, and its 95 % interval.
    public var ratio: Double
    public var ratioInterval: ConfidenceInterval?
    /// Of the medians, first less second, and its 95 % interval.
    public var difference: Double
    public var interval: ConfidenceInterval?
    /// Nil where a sample is empty.
    public var rank: RankTest?
    public var finding: Finding
    /// Whether a difference that is shown is larger than the margin.
    public var isRelevant: Bool

    /// - Parameters:
    ///   - first, second: values by block.
    ///   - isTime: they are milliseconds; else only the share of the margin counts.
    public init(_ first: [[Double]], _ second: [[Double]], isTime: Bool = true) {
        let (one, two) = (first.flatMap(\.self), second.flatMap(\.self))
        medians = (Sample(one).median, Sample(two).median)
        ratio = medians.first / medians.second
        difference = medians.first - medians.second
        let bootstrap = Bootstrap(resamples: 2000)
        func between(_ one: [Double], _ two: [Double]) -> Double { Sample(one).median - Sample(two).median }
        interval = bootstrap.interval(blocks: first, second, between)
        ratioInterval = bootstrap.interval(blocks: first, second) { Sample($0).median / Sample($1).median }
        rank = RankTest(one, two)
        let margin = max(isTime ? Self.margin.milliseconds : 0, Self.margin.share * abs(medians.second))
        isRelevant = abs(difference) > margin
        let narrow = Bootstrap(level: 0.9, resamples: 2000).interval(blocks: first, second, between)
        guard min(one.count, two.count) >= Self.leastValues, let interval, let narrow else {
            finding = .undecided
            return
        }
        if interval.lower > 0 {
            finding = .more
        } else if interval.upper < 0 {
            finding = .less
        } else {
            finding = narrow.lower > -margin && narrow.upper < margin ? .equivalent : .undecided
        }
    }
}

/// Holm's step-down adjustment (1979) of the probabilities of one family of tests: an adjusted one below 0.05 is rejected
/// with the family's error at 5 %. In the order given.
public func holm(_ probabilities: [Double]) -> [Double] {
    var (adjusted, largest) = (probabilities, 0.0)
    let order = probabilities.indices.sorted { probabilities[$0] < probabilities[$1] }
    for (position, index) in order.enumerated() {
        largest = max(largest, min(1, Double(probabilities.count - position) * probabilities[index]))
        adjusted[index] = largest
    }
    return adjusted
}

// How far a statistic could be off, from the values alone.
import Testbed

/// An interval that holds the true value with the stated confidence.
public struct ConfidenceInterval: Sendable, Hashable, Codable {
    public var lower: Double
    public var upper: Double
    /// Confidence, 0 to 1.
    public var level: Double

    public func contains(_ value: Double) -> Bool { lower <= value && value <= upper }
}

/// The percentile bootstrap (Efron 1979): the statistic of many resamples, drawn with replacement, between the
/// quantiles that leave half of 1 - `level` on either side. The same seed gives the same interval on every machine.
///
/// Intervals are nil for samples of fewer than two values, and when a resample's statistic is not a finite number.
public struct Bootstrap: Sendable {
    /// Confidence, above 0 and below 1.
    public var level: Double
    /// Resamples, 1 or more.
    public var resamples: Int
    public var seed: UInt64

    public init(level: Double = 0.95, resamples: Int = 10_000, seed: UInt64 = 1) {
        precondition(level > 0 && level < 1 && resamples > 0)
        (self.level, self.resamples, self.seed) = (level, resamples, seed)
    }

    /// Of any statistic of one sample.
    public func interval(of values: [Double], _ statistic: ([Double]) -> Double) -> ConfidenceInterval? {
        interval(of: values, []) { resample, _ in statistic(resample) }
    }

    public func median(of values: [Double]) -> ConfidenceInterval? {
        interval(of: values) { Sample($0).median }
    }

    /// Of median(first) - median(second), the samples independent of each other.
    public func differenceOfMedians(_ first: [Double], _ second: [Double]) -> ConfidenceInterval? {
        guard second.count > 1 else { return nil }
        return interval(of: first, second) { Sample($0).median - Sample($1).median }
    }

    /// Of median(first) / median(second), the samples independent of each other.
    public func ratioOfMedians(_ first: [Double], _ second: [Double]) -> ConfidenceInterval? {
        guard second.count > 1 else { return nil }
        return interval(of: first, second) { Sample($0).median / Sample($1).median }
    }

    /// Of a statistic of two samples whose values were measured in blocks: blocks are drawn with replacement, then
    /// values within each one that was drawn (the two-stage cluster bootstrap; Davison and Hinkley 1997, section 3.8).
    /// What differs between blocks counts as noise, however many values each of them has. The blocks of both are drawn
    /// alike: what a machine did in one met both.
    ///
    /// - Parameters:
    ///   - first, second: the values of each block; blocks of one number belong together.
    public func interval(
        blocks first: [[Double]], _ second: [[Double]], _ statistic: ([Double], [Double]) -> Double
    ) -> ConfidenceInterval? {
        let pairs = zip(first, second).filter { !$0.isEmpty && !$1.isEmpty }
        guard pairs.reduce(0, { $0 + $1.0.count }) > 1, pairs.reduce(0, { $0 + $1.1.count }) > 1 else { return nil }
        var random = SeededRandom(seed: seed)
        return percentiles {
            var (one, two): ([Double], [Double]) = ([], [])
            for _ in pairs.indices {
                let (a, b) = pairs[Self.position(of: pairs.count, &random)]
                for _ in a { one.append(a[Self.position(of: a.count, &random)]) }
                for _ in b { two.append(b[Self.position(of: b.count, &random)]) }
            }
            return statistic(one, two)
        }
    }

    private func interval(
        of first: [Double], _ second: [Double], _ statistic: ([Double], [Double]) -> Double
    ) -> ConfidenceInterval? {
        guard first.count > 1 else { return nil }
        var random = SeededRandom(seed: seed)
        var (one, two) = (first, second)
        return percentiles {
            Self.draw(from: first, into: &one, &random)
            Self.draw(from: second, into: &two, &random)
            return statistic(one, two)
        }
    }

    private func percentiles(_ resample: () -> Double) -> ConfidenceInterval? {
        var found: [Double] = []
        found.reserveCapacity(resamples)
        for _ in 0..<resamples {
            let value = resample()
            guard value.isFinite else { return nil }
            found.append(value)
        }
        let sample = Sample(found)
        let tail = (1 - level) / 2
        return ConfidenceInterval(lower: sample.quantile(tail), upper: sample.quantile(1 - tail), level: level)
    }

    /// Not by `Int.random`, whose way of using the generator may change with the standard library.
    private static func draw(from values: [Double], into resample: inout [Double], _ random: inout SeededRandom) {
        for index in resample.indices { resample[index] = values[position(of: values.count, &random)] }
    }
    private static func position(of count: Int, _ random: inout SeededRandom) -> Int {
        Int(random.next().multipliedFullWidth(by: UInt64(count)).high)
    }
}

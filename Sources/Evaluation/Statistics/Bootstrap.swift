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

/// The percentile bootstrap (Efron 1979): the statistic of many resamples, drawn with replacement, between the quantiles
/// that leave half of 1 - `level` on either side. The same seed gives the same interval on every machine.
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

    private func interval(
        of first: [Double], _ second: [Double], _ statistic: ([Double], [Double]) -> Double
    ) -> ConfidenceInterval? {
        guard first.count > 1 else { return nil }
        var random = SeededRandom(seed: seed)
        var (one, two) = (first, second)
        var found: [Double] = []
        found.reserveCapacity(resamples)
        for _ in 0..<resamples {
            Self.draw(from: first, into: &one, &random)
            Self.draw(from: second, into: &two, &random)
            let value = statistic(one, two)
            guard value.isFinite else { return nil }
            found.append(value)
        }
        let sample = Sample(found)
        let tail = (1 - level) / 2
        return ConfidenceInterval(lower: sample.quantile(tail), upper: sample.quantile(1 - tail), level: level)
    }

    /// Not by `Int.random`, whose way of using the generator may change with the standard library.
    private static func draw(from values: [Double], into resample: inout [Double], _ random: inout SeededRandom) {
        for index in resample.indices {
            resample[index] = values[Int(random.next().multipliedFullWidth(by: UInt64(values.count)).high)]
        }
    }
}

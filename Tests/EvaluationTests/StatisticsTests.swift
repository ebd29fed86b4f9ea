import Testing

@testable import Evaluation
@testable import Testbed

struct StatisticsTests {
    /// The generator's published sequence for seed 1234567.
    @Test func seededRandomIsSplitMix() {
        var random = SeededRandom(seed: 1_234_567)
        #expect(random.next() == 6_457_827_717_110_365_317)
        #expect(random.next() == 3_203_168_211_198_807_973)
    }

    /// Type 7, as R's quantile(c(1, 2, 4, 8), c(.25, .5, .9)) gives it.
    @Test func quantilesLieBetweenValues() {
        let sample = Sample([8, 1, .nan, 4, 2])
        #expect(sample.count == 4 && sample.omitted == 1)
        #expect(sample.quantile(0.25) == 1.75)
        #expect(sample.median == 3)
        #expect(abs(sample.quantile(0.9) - 6.8) < 1e-12)
        #expect(Sample([]).median.isNaN)
    }

    @Test func bootstrapIntervalOfTheMedianIsBetweenValues() throws {
        let values = (1...21).map(Double.init)
        let interval = try #require(Bootstrap(seed: 7).median(of: values))
        #expect(interval == Bootstrap(seed: 7).median(of: values), "the same seed gives the same interval")
        // By order statistics (binomial), the 95 % interval of 21 values' median is from the 6th to the 16th.
        #expect((5...7).contains(interval.lower) && (15...17).contains(interval.upper))
        #expect(Bootstrap().median(of: [1]) == nil)
    }

    @Test func differenceOfEqualSamplesIncludesZero() throws {
        let values = [1.0, 2, 3, 4, 5, 6, 7, 8]
        let same = try #require(Bootstrap().differenceOfMedians(values, values))
        #expect(same.contains(0))
        let apart = try #require(Bootstrap().differenceOfMedians(values.map { $0 + 20 }, values))
        #expect(apart.lower > 10 && apart.contains(20))
    }

    /// Worked by hand: ranks 1, 2, 4 against 3, 5, 6, so U = 1 + 2 + 4 - 6 = 1.
    @Test func rankTestCountsPairs() throws {
        let test = try #require(RankTest([1, 2, 4], [3, 5, 6]))
        #expect(test.u == 1)
        #expect(abs(test.delta - (2.0 / 9 - 1)) < 1e-12)
        // Mean 4.5, variance 9 · 7 / 12 = 5.25: z = (3.5 - 0.5) / 2.2913 = 1.3093, p = 0.1904.
        #expect(abs(test.z - 1.3093) < 1e-4 && abs(test.p - 0.1904) < 1e-4)
        #expect(try #require(RankTest([2, 2], [2, 2])).p == 1)
    }

    @Test func lineGoesThroughItsPoints() throws {
        let line = try #require(LineFit([(1, 5), (2, 7), (4, 11)]))
        #expect(abs(line.slope - 2) < 1e-12 && abs(line.intercept - 3) < 1e-12 && line.determination == 1)
        #expect(LineFit([(1, 5), (1, 7)]) == nil)
    }

    /// R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
    @Test func holmsAdjustmentIsThatOfR() {
        let adjusted = holm([0.01, 0.04, 0.03, 0.005])
        #expect(zip(adjusted, [0.03, 0.06, 0.06, 0.02]).allSatisfy { abs($0 - $1) < 1e-12 }, "\(adjusted)")
        #expect(holm([]) == [] && holm([0.7]) == [0.7])
    }

    /// Ten values a block that hardly differ, of blocks that do: taken as thirty independent values they would show a
    /// difference of 0.3 that the blocks do not.
    @Test func whatDiffersBetweenBlocksIsNoise() throws {
        func blocks(_ centres: [Double]) -> [[Double]] {
            centres.map { centre in (0..<10).map { centre + Double($0) * 0.001 } }
        }
        let (first, second) = (blocks([3.3, 2.3, 5.3]), blocks([3, 4, 2]))
        let apart = try #require(Comparison(first, second).interval)
        #expect(apart.lower < -0.5 && apart.upper > 0.5, "\(apart)")
        #expect(Comparison(first, second).finding == .undecided)
        let pooled = try #require(
            Bootstrap(resamples: 2000).differenceOfMedians(first.flatMap(\.self), second.flatMap(\.self)))
        #expect(pooled.upper - pooled.lower < apart.upper - apart.lower)
    }

    @Test func aDifferenceIsShownEquivalentOrLeftOpen() {
        func blocks(_ centre: Double, spread: Double) -> [[Double]] {
            (0..<3).map { block in (0..<7).map { centre + spread * Double(($0 * 5 + block) % 7 - 3) } }
        }
        let base = blocks(2, spread: 0.02)
        #expect(Comparison(blocks(2.1, spread: 0.02), base).finding == .more)
        #expect(!Comparison(blocks(2.1, spread: 0.02), base).isRelevant, "0.1 ms does not matter")
        #expect(Comparison(blocks(3, spread: 0.02), base).isRelevant)
        #expect(Comparison(blocks(1, spread: 0.02), base).finding == .less)
        #expect(Comparison(blocks(2.01, spread: 0.05), blocks(2, spread: 0.05)).finding == .equivalent)
        #expect(Comparison(blocks(2, spread: 2), blocks(2.2, spread: 2)).finding == .undecided)
        #expect(Comparison([[1], [2]], [[9], [8]]).finding == .undecided, "two values show nothing")
    }
}

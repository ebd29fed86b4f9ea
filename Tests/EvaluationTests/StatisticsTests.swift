import Testing

@testable import Evaluation

struct StatisticsTests {
    /// The generator's published sequence for seed 1234567.
    @Test func seededRandomIsSplitMix() {
        var random = SeededRandom(seed: 1_234_567)
        #expect(random.next() == 6_457_827_717_110_365_317)
        #expect(random.next() == 3_203_168_211_198_807_973)
    }
}

// How often MiGrror syncs when nobody says.
import Testing

@testable import Migration

struct SpacingTests {
    private func spacing(_ pages: UInt64, _ again: UInt64, scan: Double = 0.5, leastScan: Double = 0.5) -> Double {
        Mirroring.adaptedSpacing(pages: pages, again: again, scan: scan, leastScan: leastScan)
    }

    @Test func trackingTakesATwentieth() {
        #expect(spacing(0, 0, scan: 0.01, leastScan: 0.01) == 1)
        #expect(spacing(0, 0, scan: 4, leastScan: 4) == 80)
        #expect(spacing(100, 0) == (100 * 0.003 + 0.5) * 20)
    }

    /// Waiting saves the faults of pages that are written again and again, and only those.
    @Test func waitsLongForWhatIsWrittenAgainOnly() {
        #expect(spacing(5000, 0) == 50)
        #expect(spacing(5000, 500) == 50)
        #expect(spacing(5000, 5000) == (5000 * 0.003 + 0.5) * 20)
        #expect(spacing(10_000, 1000, scan: 15) == (44.5 * 0.1 + 0.5) * 20)
        #expect(spacing(50_000, 50_000) == 500)
    }
}

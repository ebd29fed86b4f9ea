// A container's clocks at the destination must not show less than they did at the source.
import LinuxKernel
import Testing

@testable import Migration

struct ClockTests {
    private let apart = Clocks(monotonic: -5_000_000_000, boottime: 7_000_000_000)

    @Test func whatHasDriftedIsWaitedFor() throws {
        for late in [Clocks(monotonic: 30_000_000, boottime: 0), Clocks(monotonic: 0, boottime: 30_000_000)] {
            let shown = Clocks.now() + apart + late
            try Arrival.await(shown, showing: apart)
            let now = Clocks.now() + apart
            #expect(now.monotonic >= shown.monotonic && now.boottime >= shown.boottime)
        }
        try Arrival.await(Clocks.now() + apart - Clocks(monotonic: 1, boottime: 1), showing: apart)
    }

    /// A second is no drift: the migration ends before the promise, and the source runs on.
    @Test func clocksThatDoNotFitEndTheMigration() {
        let shown = Clocks.now() + apart + Clocks(monotonic: 2_000_000_000, boottime: 0)
        let error = #expect(throws: MigrationError.self) { try Arrival.await(shown, showing: apart) }
        let message = error?.message ?? ""
        let drift = message.firstMatch(of: #/drifted apart by ([0-9]+) ms/#).flatMap { Int($0.output.1) } ?? 0
        // Some time goes by until the clocks are read.
        #expect((1000...2000).contains(drift), "\(message)")
    }
}

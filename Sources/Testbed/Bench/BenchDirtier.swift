// The dirtier as the benchmarks move it: back and forth, its verdict asked after each move.
import Migration

final class BenchDirtier {
    private let dirtier: Dirtier
    private let bed: BenchBed
    private(set) var at: EdgeHost

    /// Starts it on the first host and waits until its memory is filled.
    init(on bed: BenchBed, memory: UInt64, rate: UInt64 = 5000) async throws {
        (self.bed, at) = (bed, bed.topology.hosts[0])
        dirtier = Dirtier(
            .init(memory: memory, rate: rate), program: bed.options.dirtier, folder: bed.testbed.folder)
        try await dirtier.start(on: at)
    }

    /// Moves it to the other host and asks what it noticed.
    func move(_ plan: MigrationPlan) async throws -> (MigrationReport, DirtierVerdict) {
        let other = bed.topology.hosts.first { $0 != at }!
        try await dirtier.reset()
        let report = try await bed.move(dirtier.container, from: at, to: other, plan)
        at = other
        dirtier.moved(to: other)
        try await Task.sleep(for: .milliseconds(200))
        return (report, try await dirtier.verdict())
    }

    func remove() async throws { try await dirtier.remove() }
}

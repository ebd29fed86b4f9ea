// What the agents themselves use.
import LinuxKernel
import Agent
import Migration

extension Bench {
    func agents(_ bed: BenchBed, _ result: inout BenchCase) async throws {
        let meters = try await bed.agents()
        let dirtier = try await BenchDirtier(on: bed, memory: 2 << 30)
        progress("both agents at rest for 10 s, one container running")
        try await Task.sleep(for: .seconds(1))
        let before = try meters.map { try $0.threadTimes() }
        let start = monotonicNow()
        try await Task.sleep(for: .seconds(10))
        let seconds = Double(monotonicNow() - start) / 1e9
        // Pool threads come and go: each counts for what it used since the first look.
        let rest = try zip(meters, before).map { meter, before in
            try meter.threadTimes().reduce(0) { $0 + $1.value - (before[$1.key] ?? 0) } / seconds * 100
        }

        var sources: [Double] = []
        var destinations: [Double] = []
        var verdicts: [DirtierVerdict] = []
        var failure: (any Error)?
        do {
            for _ in 0..<options.repetitions {
                let source = bed.topology.hosts.firstIndex(of: dirtier.at)!
                for meter in meters { try meter.resetPeak() }
                let (report, verdict) = try await dirtier.move(MigrationPlan(technique: .migrror))
                sources.append(try meters[source].peak())
                destinations.append(try meters[1 - source].peak())
                result.migrations[Technique.migrror.rawValue, default: []].append(report)
                verdicts.append(verdict)
            }
            try await dirtier.remove()
        } catch { failure = error }
        result.figures = [
            Figure("agent at rest, the busier one", "% CPU", [rest.max() ?? 0], digits: 3, aim: .each(atMost: 0.5)),
            Figure("agent at rest, the other one", "% CPU", [rest.min() ?? 0], digits: 3, aim: .each(atMost: 0.5)),
            Figure("peak memory of the source's agent", "MiB", sources, digits: 1, aim: .each(atMost: 64)),
            Figure("peak memory of the destination's agent", "MiB", destinations, digits: 1, aim: .each(atMost: 64)),
        ]
        result.notes.append("near 0 % is read as at most 0.5 % of one core, over 10 s, all threads")
        result.dirtier[Technique.migrror.rawValue] = verdicts
        result.verdicts.append(.oracle(verdicts, planned: options.repetitions))
        if let failure { throw failure }
    }
}

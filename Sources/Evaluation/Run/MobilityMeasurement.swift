// A run of a plan in which users move: their ways, the lead that the models give, one row for each migration.
import Agent
import LinuxKernel
import Migration
import Testbed

extension EvaluationBed {
    func move(_ record: inout RunRecord, _ strategy: MobilityStrategy, settle: Double) async throws {
        let parameters = record.planned.parameters
        guard case .engine(let technique) = parameters.technique else {
            throw TestbedError("\(parameters.technique.name) cannot follow users: it knows no handover at a trigger")
        }
        try await acquaint(parameters.workload)
        var options = MobilityRun.Options(parameters.workloadOptions, programs: programs)
        options.strategy = strategy
        options.plan = parameters.migrationPlan(technique)
        options.reconnection = parameters.reconnection
        options.lead = parameters.lead(technique)
        let run = try MobilityRun(testbed, traces: traces(record.planned), options: options)
        record.take(try await run.run(settle: settle))
    }

    /// The same for every technique and strategy, others for each repetition.
    private func traces(_ planned: PlannedRun) throws -> [MobilityTrace] {
        let parameters = planned.parameters
        if parameters.trace != RunParameters.grid {
            let traces = try MobilityTrace.read(parameters.trace)
            guard traces.count >= parameters.users else {
                throw TestbedError("\(parameters.trace) has \(traces.count) users, not \(parameters.users)")
            }
            return Array(traces.prefix(parameters.users))
        }
        let sites = testbed.topology.accessPoints.map { CellSite(name: $0.name, x: $0.x, y: $0.y) }
        return TraceGenerator(
            around: sites, speed: 0.7 * parameters.speed...1.3 * parameters.speed,
            seed: seed &+ UInt64(planned.repetition)
        ).traces(users: parameters.users, duration: parameters.duration)
    }

    /// Moves a small workload around all hosts, so that each one has its files.
    private func acquaint(_ kind: WorkloadKind) async throws {
        guard firstMeets(kind) else { return }
        let hosts = testbed.topology.hosts
        let workload = testbed.workload(WorkloadOptions(kind: kind, memory: 16 << 20), programs: programs)
        do {
            try await workload.start(on: hosts[0])
            var moves: [Move] = []
            for (technique, index) in Technique.allCases.flatMap({ each in hosts.indices.map { (each, $0) } }) {
                let (from, to) = (hosts[index], hosts[(index + 1) % hosts.count])
                for container in workload.containers {
                    let client = AgentClient(host: from.name)
                    let id = try await client.migrate(
                        container, to: to.name, plan: MigrationPlan(technique: technique))
                    let info = try await client.wait(for: id)
                    if let error = info.error { throw error }
                    moves.append(Move(container, from: from, to: to, info.report))
                }
            }
            let outcome = try await workload.finish(after: moves)
            if let wrong = outcome.verdicts.first(where: { !$0.passed }) {
                throw TestbedError("the warm-up failed: \(wrong.name): \(wrong.detail)")
            }
        } catch {
            await workload.abandon()
            throw error
        }
    }
}

extension RunRecord {
    /// What came of the run: a row for each migration that was not cancelled.
    mutating func take(_ outcome: MobilityOutcome) {
        (mobility, verdicts) = (outcome, outcome.verdicts)
        moves = outcome.counted.map { index in
            let migration = outcome.migrations[index]
            var move = MoveRecord(migration.container, from: migration.source, to: migration.destination)
            (move.report, move.observation) = (migration.report, migration.observation)
            move.error = migration.end == .failed ? migration.error ?? "it failed" : nil
            move.interruption = outcome.handoffs.first { $0.migration == index }?.interruption
            return move
        }
    }
}

extension RunParameters {
    /// Seconds that a migration takes, by the models; a fifth more, and a second for what precedes the first byte.
    func lead(_ technique: Technique) -> Double {
        // What is copied before the handover; how much its clients change is not known beforehand.
        if technique.copy == .none { return 1 }
        var scenario = MigrationScenario(
            size: Double(memory), dirtyRate: Double(pagesPerSecond) * 4096, bandwidth: bytesPerSecond ?? .infinity,
            roundTrip: 0.1)
        (scenario.downtimeLimit, scenario.maxRounds) = (readyWithin, maxRounds)
        return 1 + 1.2 * Predictor(scenario).predict(technique).migrationTime / 1000
    }
}

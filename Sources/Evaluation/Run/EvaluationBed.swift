// The testbed of an evaluation, and one run on it: containers, clients, migrations, verdicts, removal.
import Agent
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration
import Testbed

final class EvaluationBed: Sendable {
    let testbed: Testbed
    private let teardown: Teardown
    let programs: String
    /// Of the ways that users are made to go.
    let seed: UInt64
    private let agentProgram: String?
    private let state = State()

    /// What changes while runs are made; one task makes them, one after the other.
    private final class State: @unchecked Sendable {
        var runtime = ""
        var backhaul: LinkQuality?
        var warm: Set<WarmUp> = []
        /// Workloads whose files every host has.
        var known: Set<WorkloadKind> = []
        var stands = false
    }

    /// What has been moved how.
    private struct WarmUp: Hashable {
        var workload: WorkloadKind
        var technique: EvaluatedTechnique
    }

    /// - Parameters:
    ///   - testbed: which must not stand yet; made when a run needs it.
    ///   - teardown: takes it down, whatever happens.
    init(_ testbed: Testbed, _ plan: EvaluationPlan, _ options: Evaluation.Options, _ teardown: Teardown) {
        (self.testbed, seed) = (testbed, plan.seed)
        (programs, agentProgram) = (options.programs, options.agentProgram)
        self.teardown = teardown
    }

    /// - Parameter emulated: whether the backhaul can have delays and losses; otherwise it is a pair of interfaces, shaped.
    static func testbed(_ plan: EvaluationPlan, _ options: Evaluation.Options, emulated: Bool) throws -> Testbed {
        let instance = emulated ? options.instance + "-l" : options.instance
        var topology =
            try plan.topology.map { try Topology(file: $0, instance: instance) }
            ?? Topology(instance: instance, backhaul: .unlimited)
        for index in topology.links.indices where topology.links[index].kind == .backhaul {
            topology.links[index].isEmulated = emulated
        }
        if let old = try TestbedState.load(instance: instance), old.owner?.isAlive ?? true {
            throw TestbedError("testbed \(instance) stands: choose another --instance, or take it down")
        }
        return Testbed(topology)
    }

    var runtime: String { state.runtime }

    /// The machine of the users, and the hosts where they are others.
    func machine() async throws -> Machine {
        var machine = Machine.here()
        for host in testbed.topology.hosts where host.machine != nil {
            let host = try await AgentClient(host: host.name).host()
            let runtime = host.runtimeVersion?.split(separator: "\n").first ?? "no version"
            machine.add(
                host: host.name, "\(host.facts.processor), Linux \(host.facts.release), \(host.runtime) \(runtime)")
        }
        return machine
    }

    func up() async throws {
        try teardown.making { try testbed.upNetwork(owned: true, executable: agentProgram) }
        let children = try teardown.making { try testbed.spawnAgents(executable: agentProgram) }
        try await testbed.waitForAgents(children)
        let host = try await AgentClient(host: testbed.topology.hosts[0].name).host()
        guard let version = host.runtimeVersion?.split(separator: "\n").first else {
            throw TestbedError(
                "\(host.runtime) does not run here: install it; `apus doctor` tells what else is missing")
        }
        state.runtime = String(version)
        (state.backhaul, state.warm, state.stands, state.known) = (nil, [], true, [])
    }

    func down() throws {
        try teardown.making { testbed.down() }
        state.stands = false
    }

    /// Makes a run. After one that failed, whatever still stands is not trusted: the next one gets a new testbed.
    ///
    /// - Throws: when no testbed can be had, or the end has begun.
    func make(_ planned: PlannedRun, settle: Double) async throws -> RunRecord {
        if !state.stands { try await up() }
        var record = RunRecord(planned)
        do {
            try await warmUp(planned.parameters)
            try await measure(&record, settle: settle)
        } catch { record.error = record.error ?? "\(error)" }
        if teardown.isEnding { throw TestbedError("interrupted") }
        if !record.passed { try down() }
        return record
    }

    /// Moves that do not count: the destination has the files then, and both agents have done all once.
    private func warmUp(_ planned: RunParameters) async throws {
        var parameters = RunParameters()
        (parameters.workload, parameters.memory, parameters.dirtyRate) = (planned.workload, 16 << 20, 4 << 20)
        (parameters.freezeLimit, parameters.preset) = (planned.freezeLimit, planned.preset)
        for technique in (EvaluatedTechnique.engines + [planned.technique]).uniqued
        where state.warm.insert(WarmUp(workload: planned.workload, technique: technique)).inserted {
            parameters.technique = technique
            var record = RunRecord(PlannedRun(parameters: parameters, repetition: 0))
            try await measure(&record, settle: 0)
            if !record.passed { throw TestbedError("the warm-up failed: \(record.problem ?? "?")") }
        }
    }

    private func measure(_ record: inout RunRecord, settle: Double) async throws {
        var parameters = record.planned.parameters
        if parameters.triggerJitter > 0 {
            // By the repetition alone: all techniques are triggered at the same instant.
            var random = SeededRandom(seed: seed &+ UInt64(record.planned.repetition))
            parameters.triggerAfter += parameters.triggerJitter * Double.random(in: 0..<1, using: &random)
        }
        // Starting and filling cost no backhaul.
        if state.backhaul != parameters.backhaul {
            for link in testbed.topology.links where link.kind == .backhaul {
                try testbed.change(link, to: LinkChange(parameters.backhaul))
            }
            state.backhaul = parameters.backhaul
        }
        if let strategy = parameters.mobility { return try await move(&record, strategy, settle: settle) }
        let workloads = (0..<parameters.containers).map {
            testbed.workload(parameters.workloadOptions, index: $0, programs: programs)
        }
        do {
            for workload in workloads { try await workload.start(on: source) }
            try await Task.sleep(for: .seconds(settle))
            let moves = try await migrate(workloads.map(\.containers), parameters)
            record.moves = moves.flatMap(\.self)
            // A client sees a blackout whole only some time after it: longer than any timer that it may have started.
            try await Task.sleep(for: .milliseconds(300))
            var observations: [Observation] = []
            for (workload, moves) in zip(workloads, moves) {
                let outcome = try await workload.finish(
                    after: moves.map {
                        Move(
                            $0.container, from: source,
                            to: parameters.technique == .control ? source : destination, $0.report)
                    })
                observations += outcome.observations
                record.verdicts += outcome.verdicts
            }
            for (index, observation) in observations.enumerated() { record.moves[index].observation = observation }
        } catch {
            for workload in workloads { await workload.abandon() }
            throw error
        }
    }

    /// Whether every host has a workload's files already; from now on it does.
    func firstMeets(_ kind: WorkloadKind) -> Bool { state.known.insert(kind).inserted }

    private var source: EdgeHost { testbed.topology.hosts[0] }
    private var destination: EdgeHost { testbed.topology.hosts[1] }

    /// Moves the workloads' containers: all workloads at the same time, the containers of each one after the other
    /// until one fails.
    private func migrate(_ workloads: [[String]], _ parameters: RunParameters) async throws -> [[MoveRecord]] {
        let before = try await agentTimes()
        var moves = await withTaskGroup(of: (Int, [MoveRecord]).self) { group in
            for (index, containers) in workloads.enumerated() {
                group.addTask { (index, await self.migrateInTurn(containers, parameters)) }
            }
            return await group.reduce(into: Array(repeating: [], count: workloads.count)) { $0[$1.0] = $1.1 }
        }
        // In the baseline the agents have no part.
        if parameters.technique.isCRIU { return moves }
        // The agents work for all moves at once: what each took cannot be told.
        let count = Double(moves.joined().count)
        let used = try await zip(agentTimes(), before).map { ($0 - $1) / count }
        for index in moves.indices {
            for move in moves[index].indices {
                (moves[index][move].sourceCPU, moves[index][move].destinationCPU) = (used[0], used[1])
            }
        }
        return moves
    }

    /// CPU time that the source's and the destination's agent have used so far, seconds.
    private func agentTimes() async throws -> [Double] {
        var times: [Double] = []
        for host in [source, destination] { times.append(try await AgentClient(host: host.name).host().cpuTime) }
        return times
    }

    private func migrateInTurn(_ containers: [String], _ parameters: RunParameters) async -> [MoveRecord] {
        var moves: [MoveRecord] = []
        for container in containers {
            var move = MoveRecord(container, from: source.name, to: destination.name)
            do { move.report = try await migrate(container, parameters) } catch { move.error = "\(error)" }
            moves.append(move)
            if move.report == nil { break }
        }
        return moves
    }

    /// Leaves a container where it is for as long as a migration of it would take about: the "blackout" is an instant.
    private func stay(_ container: String, _ parameters: RunParameters) async throws -> MigrationReport {
        let decided = monotonicNow()
        let pid = try await AgentClient(host: source.name).container(container).pid
        // A container of another machine has no process here.
        let isHere = source.machine == nil
        let before = isHere ? try? ProcessLoad(of: pid) : nil
        try await Task.sleep(for: .seconds(parameters.copyTime))
        let after = isHere ? try? ProcessLoad(of: pid) : nil
        var report = MigrationReport(plan: MigrationPlan(technique: .cold))
        (report.container, report.source, report.destination) = (container, source.name, source.name)
        (report.loadAtDecision, report.loadAtHandover) = (before, after)
        report.frozenAt = monotonicNow()
        report.releasedAt = report.frozenAt
        report.migrationTime = Double(report.releasedAt - decided) / 1e6
        return report
    }

    private func migrate(_ container: String, _ parameters: RunParameters) async throws -> MigrationReport {
        switch parameters.technique {
        case .engine(let technique):
            try await EngineMigration(technique: technique, parameters: parameters)
                .move(container, from: source, to: destination)
        case .control: try await stay(container, parameters)
        case .criu(let technique):
            try await CRIUMigration(try EvaluatedTechnique.thisCRIU.get(), parameters.migrationPlan(technique)).migrate(
                container, from: source, to: destination,
                triggerAfter: parameters.handover == .atTrigger ? parameters.triggerAfter : nil)
        }
    }
}

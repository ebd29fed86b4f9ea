// The testbed of an evaluation, and one run on it: container, client, migration, verdict, removal.
import Agent
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration
import Testbed

final class EvaluationBed: Sendable {
    private let testbed: Testbed
    private let teardown: Teardown
    private let programs: String
    private let agentProgram: String?
    let loadBefore = ((try? SmallFile.text("/proc/loadavg")) ?? "?").split(separator: " ").prefix(3)
        .joined(separator: " ")
    private let state = State()

    /// What changes while runs are made; one task makes them, one after the other.
    private final class State: @unchecked Sendable {
        var runtime = ""
        var bandwidth: LinkRate?
        var warm: Set<WorkloadKind> = []
        var stands = false
    }

    init(_ options: Evaluation.Options) throws {
        let instance = options.instance
        let testbed = Testbed(try Topology(instance: instance, backhaul: .unlimited))
        if let old = try TestbedState.load(instance: instance), old.owner?.isAlive ?? true {
            throw TestbedError("testbed \(instance) stands: choose another --instance, or take it down")
        }
        (self.testbed, programs, agentProgram) = (testbed, options.programs, options.agentProgram)
        teardown = try Teardown { testbed.down() }
    }

    var runtime: String { state.runtime }

    func up() async throws {
        try teardown.making { try testbed.upNetwork(owned: true) }
        let children = try teardown.making { try testbed.spawnAgents(executable: agentProgram) }
        try await testbed.waitForAgents(children)
        let host = try await AgentClient(host: testbed.topology.hosts[0].name).host()
        state.runtime = host.runtimeVersion?.split(separator: "\n").first.map(String.init) ?? host.runtime
        (state.bandwidth, state.warm, state.stands) = (.unlimited, [], true)
    }

    func down() throws {
        try teardown.making { testbed.down() }
        state.stands = false
    }

    /// Takes everything down; once.
    func finish() { teardown.finish() }
    func leftovers() -> [String] { testbed.leftovers() }

    /// Makes a run. After one that failed, whatever still stands is not trusted: the next one gets a new testbed.
    ///
    /// - Throws: when no testbed can be had, or the end has begun.
    func make(_ planned: PlannedRun, settle: Double) async throws -> RunRecord {
        if !state.stands { try await up() }
        var record = RunRecord(planned: planned, startedAt: Date().ISO8601Format())
        do {
            try await warmUp(planned.parameters.workload)
            try await measure(&record, settle: settle)
        } catch { record.error = record.error ?? "\(error)" }
        if teardown.isEnding { throw TestbedError("interrupted") }
        if !record.passed { try down() }
        return record
    }

    /// A move that does not count: the destination has the files then, and both agents have done all once.
    private func warmUp(_ kind: WorkloadKind) async throws {
        guard state.warm.insert(kind).inserted else { return }
        var parameters = RunParameters()
        (parameters.workload, parameters.memory, parameters.dirtyRate) = (kind, 16 << 20, 4 << 20)
        for technique in [Technique.cold, .preCopy, .migrror] {
            parameters.technique = technique
            var record = RunRecord(planned: PlannedRun(parameters: parameters, repetition: 0), startedAt: "")
            try await measure(&record, settle: 0)
            if !record.passed { throw TestbedError("the warm-up failed: \(record.problem ?? "?")") }
        }
    }

    private func measure(_ record: inout RunRecord, settle: Double) async throws {
        let parameters = record.planned.parameters
        let (source, destination) = (testbed.topology.hosts[0], testbed.topology.hosts[1])
        // Starting and filling cost no backhaul.
        if state.bandwidth != parameters.bandwidth {
            try testbed.setBackhaul(parameters.bandwidth)
            state.bandwidth = parameters.bandwidth
        }
        let workload = testbed.workload(parameters.workloadOptions, programs: programs)
        let container = workload.containers[0]
        do {
            try await workload.start(on: source)
            try await Task.sleep(for: .seconds(settle))
            do {
                record.report = try await migrate(container, from: source, to: destination, parameters)
            } catch { record.error = "\(error)" }
            try await Task.sleep(for: .seconds(min(settle, 0.5)))
            let outcome = try await workload.finish(
                after: [Move(container, from: source, to: destination, record.report)])
            (record.observation, record.verdicts) = (outcome.observations[0], outcome.verdicts)
        } catch {
            await workload.abandon()
            throw error
        }
    }

    private func migrate(
        _ container: String, from source: EdgeHost, to destination: EdgeHost, _ parameters: RunParameters
    ) async throws -> MigrationReport {
        let client = AgentClient(host: source.name)
        let id = try await client.migrate(container, to: destination.name, plan: parameters.migrationPlan)
        let decided = monotonicNow()
        if parameters.handover == .atTrigger {
            let elapsed = Double(monotonicNow() - decided) / 1e9
            try await Task.sleep(for: .seconds(max(0, parameters.triggerAfter - elapsed)))
            _ = try await client.handOver(id)
        }
        // Twenty times what sending the memory once takes: who needs longer does not converge.
        let once = Double(parameters.memory) / (parameters.bytesPerSecond ?? 1e8)
        let limit = 60 + 20 * once
        while true {
            let info = try await client.migration(id)
            if info.isOver {
                if let error = info.error { throw error }
                guard let report = info.report else {
                    throw TestbedError(
                        "migration \(id) ended in state \(info.progress.state.rawValue) without a report")
                }
                return report
            }
            if Double(monotonicNow() - decided) / 1e9 > limit {
                _ = try? await client.cancel(id)
                _ = try? await client.wait(for: id)
                throw TestbedError(
                    "not over after \(Int(limit)) s: \(info.progress.remark ?? info.progress.state.rawValue)")
            }
            try await Task.sleep(for: .milliseconds(100))
        }
    }
}

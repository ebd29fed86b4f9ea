import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

/// Workloads on a testbed with agents, each of their containers moved once, small and quick: every verdict must hold.
@Suite(.serialized, .enabled(if: geteuid() == 0))
struct WorkloadMoveTests {
    @Test(.timeLimit(.minutes(2)), arguments: [WorkloadKind.ycsbRedis, .ycsbMemcached, .distributed])
    func everyVerdictHolds(kind: WorkloadKind) async throws {
        let testbed = Testbed(try Topology(instance: "tb-move"))
        testbed.down()
        try testbed.upNetwork()
        defer {
            testbed.down()
            #expect(testbed.leftovers() == [])
        }
        try await testbed.waitForAgents(testbed.spawnAgents(executable: BuiltProgram.path()))
        let hosts = testbed.topology.hosts
        var options = WorkloadOptions(kind: kind, memory: 4 << 20)
        options.rate = 500
        let workload = testbed.workload(options, programs: ".build/workloads")
        var moves: [Move] = []
        do {
            try await workload.start(on: hosts[0])
            for (container, technique) in zip(workload.containers, [Technique.migrror, .preCopy, .cold]) {
                try await Task.sleep(for: .milliseconds(100))
                let report = try await AgentHosts().migrate(
                    container, from: hosts[0], to: hosts[1], plan: MigrationPlan(technique: technique)
                ) { _ in }
                moves.append(Move(container, from: hosts[0], to: hosts[1], report))
            }
            try await Task.sleep(for: .milliseconds(300))
            let outcome = try await workload.finish(after: moves)
            for verdict in outcome.verdicts where !verdict.passed { Issue.record("\(verdict.name): \(verdict.detail)") }
            #expect(outcome.passed && outcome.observations.count == moves.count)
            for observation in outcome.observations {
                #expect(observation.latency.count == 4 && observation.latency.allSatisfy { $0.unanswered == 0 })
                #expect(try #require(observation.clientDowntime) > 0)
            }
        } catch {
            await workload.abandon()
            throw error
        }
    }
}

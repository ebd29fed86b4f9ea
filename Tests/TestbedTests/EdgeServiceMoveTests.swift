import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0))
struct EdgeServiceMoveTests {
    /// Moves a workload by MiGrror and back by cold; what came of it.
    static func move(_ options: WorkloadOptions, instance: String) async throws -> (Outcome, [Move]) {
        let testbed = Testbed(try Topology(instance: instance))
        testbed.down()
        defer { testbed.down() }
        try testbed.upNetwork()
        let children = try testbed.spawnAgents(executable: BuiltProgram.path())
        try await testbed.waitForAgents(children)
        let workload = testbed.workload(options, programs: ".build/workloads")
        let (a, b) = (testbed.topology.hosts[0], testbed.topology.hosts[1])
        do {
            try await workload.start(on: a)
            try await Task.sleep(for: .milliseconds(300))
            var moves: [Move] = []
            for (technique, from, to) in [(Technique.migrror, a, b), (.cold, b, a)] {
                let report = try await AgentHosts().migrate(
                    workload.containers[0], from: from, to: to, plan: MigrationPlan(technique: technique)
                ) { _ in }
                moves.append(Move(workload.containers[0], from: from, to: to, report))
                try await Task.sleep(for: .milliseconds(300))
            }
            return (try await workload.finish(after: moves), moves)
        } catch {
            await workload.abandon()
            throw error
        }
    }

    @Test(.timeLimit(.minutes(2)), arguments: [(WorkloadKind.vehicular, Transport.mixed), (.ar, .udp), (.ar, .tcp)])
    func servicesMove(kind: WorkloadKind, transport: Transport) async throws {
        var options = WorkloadOptions(kind: kind, memory: 8 << 20)
        options.transport = transport
        let (outcome, moves) = try await Self.move(options, instance: "edge-move")
        #expect(outcome.passed, "\(outcome.verdicts)")
        for (observation, move) in zip(outcome.observations, moves) {
            let report = try #require(move.report)
            let latency = observation.latency.map {
                "\($0.stretch): \($0.requests), late \($0.late ?? -1), p99 \($0.p99) ms"
            }
            print(
                """
                \(kind) to \(move.destination.name): engine \(report.engineDowntime) ms, workload
                \(observation.workloadDowntime ?? -1) ms, client \(observation.clientDowntime ?? -1) ms, \(latency)
                """)
            // The service was away for no less than the engine says.
            #expect(try #require(observation.workloadDowntime) > report.engineDowntime * 0.9)
            #expect(observation.latency.allSatisfy { $0.duplicated == 0 })
            // Through a long blackout more datagrams may come than the service's socket has room for, as at any stall.
            let losesNothing = transport == .tcp || report.plan.technique != .cold
            let unanswered = observation.latency.map { "\($0.stretch): \($0.unanswered) of \($0.requests)" }
            #expect(!losesNothing || observation.latency.prefix(2).allSatisfy { $0.unanswered == 0 }, "\(unanswered)")
            #expect(observation.latency[0].requests > 10 && observation.latency[0].late != nil)
        }
    }
}

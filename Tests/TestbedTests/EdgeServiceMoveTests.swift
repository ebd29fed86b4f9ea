import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0))
struct EdgeServiceMoveTests {
    /// Moves a workload by MiGrror and back by cold; what came of it, and how many datagrams had no room in the
    /// service's sockets where it was in the end.
    static func move(_ options: WorkloadOptions, instance: String) async throws -> (Outcome, [Move], noRoom: Int) {
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
            let noRoom = try Self.datagramsWithoutRoom(workload.containers[0], at: a)
            return (try await workload.finish(after: moves), moves, noRoom)
        } catch {
            await workload.abandon()
            throw error
        }
    }

    /// UdpRcvbufErrors of a container's network.
    private static func datagramsWithoutRoom(_ container: String, at host: EdgeHost) throws -> Int {
        let text = try NetworkNamespace(opening: "\(host.runFolder)/netns/\(container).netns").run {
            () throws(KernelError) in try SmallFile.text("/proc/thread-self/net/snmp")
        }
        let lines = text.split(separator: "\n").filter { $0.hasPrefix("Udp:") }.map { $0.split(separator: " ") }
        let column = try #require(lines.first?.firstIndex(of: "RcvbufErrors"))
        return try #require(Int(lines[1][column]))
    }

    @Test(.timeLimit(.minutes(2)), arguments: [(WorkloadKind.vehicular, Transport.mixed), (.ar, .udp), (.ar, .tcp)])
    func servicesMove(kind: WorkloadKind, transport: Transport) async throws {
        var options = WorkloadOptions(kind: kind, memory: 8 << 20)
        options.transport = transport
        let (outcome, moves, noRoom) = try await Self.move(options, instance: "edge-move")
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
            let least = report.engineDowntime - max(2, report.engineDowntime * 0.1)
            #expect(try #require(observation.workloadDowntime) > least)
            #expect(observation.latency.allSatisfy { $0.duplicated == 0 })
            // Through a long blackout more datagrams may come than the service's socket has room for, as at any stall:
            // the kernel counts them, and none is lost elsewhere.
            let allowed = transport == .tcp || report.plan.technique != .cold ? 0 : noRoom
            let unanswered = observation.latency.map { "\($0.stretch): \($0.unanswered) of \($0.requests)" }
            let lost = observation.latency.prefix(2).reduce(0) { $0 + $1.unanswered }
            #expect(lost <= allowed, "\(unanswered), \(noRoom) without room")
            #expect(observation.latency[0].requests > 10 && observation.latency[0].late != nil)
        }
    }
}

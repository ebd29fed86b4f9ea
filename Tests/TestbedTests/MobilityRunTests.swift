// Three users drive past three edge hosts, and their services follow.
import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(3)))
struct MobilityRunTests {
    @Test func servicesFollowTheirUsersAndAnswerThroughout() async throws {
        let testbed = Testbed(try Topology(file: "Topologies/street.yaml", instance: "tb-street"))
        testbed.down()
        try testbed.upNetwork()
        defer { testbed.down() }
        let program = try #require(try BuiltProgram.path(), "the apus program stands beside the tests")
        try await testbed.waitForAgents(try testbed.spawnAgents(executable: program))
        var options = MobilityRun.Options(
            WorkloadOptions(kind: .redis, memory: 8 << 20), programs: ".build/workloads")
        options.margin = 0.5
        let traces = try MobilityTrace.read("Plans/traces/three-cars.csv")

        // Two are handed to the next access point, one turns back: what was begun for it is cancelled.
        let proactive = try await MobilityRun(testbed, traces: traces, options: options).run()
        for verdict in proactive.verdicts { #expect(verdict.passed, "\(verdict)") }
        #expect(proactive.passed && proactive.users.count == 3)
        #expect(proactive.users.allSatisfy { $0.verdicts.contains { $0.name == "answers throughout" } })
        let byUser = proactive.migrations.sorted { $0.user < $1.user }
        #expect(byUser.map(\.end) == [.arrived, .arrived, .cancelled])
        #expect(byUser.map { testbed.topology.host($0.destination)!.number } == [2, 3, 2])
        // Decided at the zone's entry, triggered by the handoff, with some ms in between unless the machine is busy.
        #expect(byUser.map(\.zoneAt) == [29, 36, 22] && byUser.map(\.handoffAt) == [40, 48, nil])
        for migration in byUser.prefix(2) {
            #expect(abs(migration.decidedAt - migration.zoneAt!) < 2)
            #expect(migration.releasedAt! >= migration.handoffAt! && migration.wasReady == true)
            #expect(migration.stateAtHandoff == "copying")
        }
        #expect(proactive.handoffs.count == 2 && proactive.skipped > 15)
        for handoff in proactive.handoffs {
            // The interruption is the device's, and contains the downtime.
            let downtime = try #require(handoff.migration.flatMap { proactive.migrations[$0].report?.engineDowntime })
            #expect(handoff.radio >= 100 && handoff.interruption! >= max(handoff.radio, downtime) - 2)
            #expect(downtime < 1000)
        }
        #expect(proactive.handoffs.allSatisfy { $0.interruption! < 3000 })

        // A service that stays goes on answering from afar.
        options.strategy = .staying
        let staying = try await MobilityRun(testbed, traces: traces, options: options).run()
        for verdict in staying.verdicts { #expect(verdict.passed, "\(verdict)") }
        #expect(staying.passed && staying.migrations.isEmpty && staying.handoffs.map(\.wasLocal) == [false, false])
        func requests(_ outcome: MobilityOutcome, _ stretch: String) -> [Int] {
            outcome.users.map { user in user.latency.first { $0.stretch == stretch }!.requests }
        }
        // Two have left their services behind, which follow at once where they do; the third one never leaves.
        let far = requests(staying, "far"), followed = requests(proactive, "far")
        #expect(far[0] > 100 && far[1] > 100 && far[2] == 0 && followed[0] < far[0] / 2 && followed[1] < far[1] / 2)
        #expect(
            requests(staying, "near").allSatisfy { $0 > 100 }
                && requests(staying, "handoff").prefix(2).allSatisfy { $0 > 0 })

        testbed.down()
        #expect(testbed.leftovers() == [])
    }

    @Test func whatDoesNotFitIsRefused() throws {
        let testbed = Testbed(try Topology(file: "Topologies/street.yaml", instance: "tb-street"))
        let options = MobilityRun.Options(WorkloadOptions(kind: .redis, memory: 8 << 20), programs: ".build/workloads")
        let traces = try MobilityTrace.read("Plans/traces/three-cars.csv")
        #expect(throws: TestbedError.self) { try MobilityRun(testbed, traces: traces + traces, options: options) }
        let plain = Testbed(try Topology(instance: "tb-street"))
        #expect(throws: TestbedError.self) { try MobilityRun(plain, traces: [traces[0]], options: options) }
        let away = TraceGenerator(around: [CellSite(name: "x", x: 9000, y: 0)], seed: 1).traces(users: 1, duration: 9)
        let error = #expect(throws: TestbedError.self) { try MobilityRun(testbed, traces: away, options: options) }
        #expect(error?.description.contains("no access point reaches user user-1") == true)
    }
}

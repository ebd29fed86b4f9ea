import CLinux
import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

/// Agents that only pretend: the server stays where it is, a migration stops it for a while.
private final class PretendedHosts: ContainerHosts, @unchecked Sendable {
    let server: ChildProcess
    var loses = false
    init(_ topology: Topology) throws {
        server = try ChildProcess(
            "redis-server", ["--save", "", "--bind", "0.0.0.0", "--protected-mode", "no"], folder: "/tmp",
            namespace: topology.hosts[0].namespace, diesWithParent: true)
    }
    func run(_ container: ScenarioContainer, on host: EdgeHost) async throws {
        _ = clx_setpriority(server.pid, -15)
    }
    func isRunning(_ name: String, on host: EdgeHost) async throws -> Bool { server.isRunning }
    func remove(_ name: String, from host: EdgeHost) async throws { server.stop() }
    func migrate(
        _ name: String, from source: EdgeHost, to destination: EdgeHost, plan: MigrationPlan,
        progress: @escaping @Sendable (MigrationProgress) -> Void
    ) async throws -> MigrationReport {
        var report = MigrationReport(plan: plan)
        report.source = source.name
        report.destination = destination.name
        // No longer than the server has stood still.
        server.signal(SIGSTOP)
        report.frozenAt = monotonicNow()
        usleep(plan.technique == .cold ? 120_000 : 10_000)
        report.releasedAt = monotonicNow()
        server.signal(SIGCONT)
        report.engineDowntime = Double(report.releasedAt - report.frozenAt) / 1e6
        report.migrationTime = report.engineDowntime + 1
        report.phases = [.init(name: "negotiate", duration: 1), .init(name: "freeze", duration: report.engineDowntime)]
        report.passes = [PassReport(start: 0, duration: 1, pages: 68_000, bytes: 278_528_000)]
        report.pagesSent = 68_000
        report.bytesSent = 278_528_000
        report.stateBytes = 277_000_000
        if loses { server.stop(grace: 0) }
        return report
    }
}

@Suite(.serialized, .enabled(if: geteuid() == 0))
struct DemoTests {
    private func demo(_ instance: String, loses: Bool, repetitions: Int = 1) async throws -> DemoReport {
        let testbed = Testbed(try Topology(instance: instance))
        testbed.down()
        try testbed.upNetwork()
        defer { testbed.down() }
        let hosts = try PretendedHosts(testbed.topology)
        hosts.loses = loses
        defer { hosts.server.stop(grace: 0) }
        var options = Demo.Options()
        options.memory = ByteCount(4 << 20)
        options.calm = 0.5
        options.repetitions = repetitions
        var demo = Demo(testbed.topology, options, hosts: hosts, folder: testbed.folder) { print($0) }
        demo.address = "10.78.0.1"
        return await demo.run()
    }

    @Test(.timeLimit(.minutes(1)))
    func verdictsPassAndTheTableFits() async throws {
        let report = try await demo("tb-demo", loses: false, repetitions: 2)
        let text = report.text()
        print(text)
        #expect(report.passed, "\(report.problems) \(report.verdicts)")
        #expect(report.moves.map(\.technique) == [.cold, .preCopy, .migrror, .cold, .preCopy, .migrror])
        // Never less than it was (but for one period); more when the machine does something else meanwhile, so only
        // most of the moves must agree.
        var close = 0
        for move in report.moves {
            #expect(move.clientDowntime > move.engineDowntime - 2 && move.workloadDowntime > move.engineDowntime - 2)
            if move.clientDowntime < move.engineDowntime + 3 && move.workloadDowntime < move.engineDowntime + 3 {
                close += 1
            }
        }
        #expect(close >= 3, "\(report.moves.map { ($0.engineDowntime, $0.workloadDowntime, $0.clientDowntime) })")
        #expect(text.split(separator: "\n").allSatisfy { $0.count <= 120 })
    }

    @Test(.timeLimit(.minutes(1)))
    func lostServerFails() async throws {
        let report = try await demo("tb-demo", loses: true)
        #expect(!report.passed)
        #expect(report.verdicts.contains { $0.name == "TCP connection never closed" && !$0.passed })
        #expect(!report.problems.isEmpty)
    }

    /// SIGTERM while the network is made, and while agents, container and client are up: the status says so and nothing
    /// is left.
    @Test(.timeLimit(.minutes(1)), arguments: [0, 100, 1000])
    func interruptedRemovesEverything(milliseconds: UInt32) throws {
        let program = try #require(try BuiltProgram.path(), "the apus program stands beside the tests")
        let testbed = Testbed(try Topology(instance: "tb-term"))
        testbed.down()
        defer { testbed.down() }
        let child = try ChildProcess(
            program, ["demo", "--instance", "tb-term", "--memory", "16MiB", "--json-file", "/dev/null"])
        // The record comes after the handlers.
        #expect(waitUntil(seconds: 20) { fileExists(TestbedState.path("tb-term")) })
        usleep(milliseconds * 1000)
        child.signal(SIGTERM)
        let status = try #require(child.wait(seconds: 30))
        #expect(status >> 8 == 128 + SIGTERM)
        #expect(testbed.leftovers() == [])
    }

    /// What a killed demo left does not stand in the next one's way; what someone made to stay does.
    @Test(.timeLimit(.minutes(1)))
    func killedDemoIsRemovedByTheNext() throws {
        let program = try #require(try BuiltProgram.path(), "the apus program stands beside the tests")
        let testbed = Testbed(try Topology(instance: "tb-term"))
        testbed.down()
        defer { testbed.down() }
        let child = try ChildProcess(program, ["demo", "--instance", "tb-term", "--memory", "16MiB"], folder: "/tmp")
        #expect(waitUntil(seconds: 20) { fileExists(testbed.topology.hosts[1].runFolder + "/api.sock") })
        child.signal(SIGKILL)
        _ = child.wait(seconds: 5)
        #expect(testbed.leftovers() != [])
        try testbed.upNetwork(owned: true)
        #expect(try testbed.status().agents.isEmpty)
        #expect(throws: TestbedError.self) { try testbed.upNetwork() }
    }

    @Test func numbersAreGrouped() {
        #expect(grouped(0) == "0" && grouped(1234567.891, digits: 2) == "1,234,567.89")
        #expect(grouped(-0.04, digits: 1) == "0.0" && grouped(-1234.56, digits: 1) == "-1,234.6")
        #expect(grouped(999.999, digits: 2) == "1,000.00" && grouped(.nan) == "–")
        #expect(ByteCount("256MiB")?.bytes == 268_435_456 && ByteCount("0") == nil)
        #expect(ByteCount("1.5GiB")?.bytes == 1_610_612_736)
        #expect(ByteCount(268_435_456).description == "256 MiB" && ByteCount("xMiB") == nil)
    }
}

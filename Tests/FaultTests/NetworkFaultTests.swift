// A redis server with a live TCP client: deaths while its port is muted and its connections are under repair.
import Agent
import Containers
import Foundation
import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(5)))
struct NetworkFaultTests {
    static let cases: [FaultCase] = [
        (.sourceStopped, nil), (.sourceRedirected, nil), (.sourceRepaired, nil), (.sourceSilenced, nil),
        (.sourcePromised, nil),
        (.destinationMuted, nil), (.destinationPrepared, nil), (.destinationDisarmed, nil), (.destinationReleased, nil),
        (.sourceSilenced, .guardRepaired), (.sourceSilenced, .guardOpened), (.destinationDisarmed, .guardPortOpened),
    ].map { (point: FaultPoint, second: FaultPoint?) in
        FaultCase(
            technique: .migrror, point: point, victim: point.rawValue < 100 ? .sourceAgent : .destinationAgent,
            second: second)
    }

    @Test(.timeLimit(.minutes(1)), arguments: cases) func clientsStayConnected(_ fault: FaultCase) async throws {
        let testbed = try TestbedHosts("ft")
        defer { testbed.tearDown() }
        let hosts = testbed.hosts
        let isSource = fault.point.rawValue < 100
        let plan = "\(fault.point.rawValue)" + (fault.second.map { ",\($0.rawValue)" } ?? "")
        try await hosts.a.start(fault: isSource ? plan : nil)
        try await hosts.b.start(fault: isSource ? nil : plan)

        let server = ["/usr/bin/redis-server", "--save", "", "--bind", "0.0.0.0", "--protected-mode", "no"]
        var builder = BundleBuilder(programs: [server[0]], arguments: server)
        builder.workingDirectory = "/tmp"
        builder.openFiles = 4096
        try builder.build(in: "\(hosts.folder)/bundle")
        _ = try await hosts.a.client.run(
            RunRequest(
                name: hosts.container, bundle: "\(hosts.folder)/bundle",
                network: .init(mac: "02:42:0a:4e:00:0a", addresses: ["10.78.0.10/24"])))
        let endpoint = RedisEndpoint(address: FaultHosts.address, namespace: testbed.topology.userDevice)
        try endpoint.waitUntilReady(seconds: 20)
        let client = try RedisProbe(endpoint)
        usleep(200_000)
        _ = try await hosts.a.client.migrate(
            hosts.container, to: hosts.b.name, plan: MigrationPlan(technique: .migrror))
        let points = [fault.point, fault.second].compactMap { $0?.rawValue }
        try await wait(seconds: 10) { points.allSatisfy { point in hosts.hits().contains { $0.point == point } } }
        #expect(
            points.allSatisfy { point in hosts.hits().contains { $0.point == point } },
            "a point was never hit\n\(hosts.a.words)\n\(hosts.b.words)")
        if fault.second != nil {
            try await wait(seconds: 10) { (isSource ? hosts.a : hosts.b).isGone }
            for host in [hosts.a, hosts.b] where !host.isRunning { try await host.start() }
        }
        var clean: Int64?
        let hit = hosts.hits().first { $0.point == fault.point.rawValue }
        try await wait {
            if hosts.mistakes().isEmpty { clean = monotonicNow() }
            return clean != nil
        }
        #expect(clean != nil, "\(hosts.mistakes())\n\(hosts.a.words)\n\(hosts.b.words)")
        usleep(1_000_000)
        let recording = client.stop()
        // All but the last: who is dead for a moment may cost a client its retransmission timeout.
        let verdicts = recording.verdicts(blackouts: []).dropLast()
        let failed = verdicts.filter { !$0.passed }
        #expect(failed.isEmpty, "\(failed)\n\(recording.problems)")
        if let clean, let hit {
            print(
                "redis, \(fault.testDescription): clean after \((clean - hit.at) / 1_000_000) ms, on \(try hosts.place() === hosts.a ? "source" : "destination")"
            )
        }
    }
}

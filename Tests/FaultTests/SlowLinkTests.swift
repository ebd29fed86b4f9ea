// A link that carries less than a program writes: what waits for it waits at the source, where it may still change, and not
// in the queue of the socket.
import Agent
import Glibc
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct SlowLinkTests {
    /// 80 pages are written 5,000 times a second, 20 MB/s, and the link carries 5: all 80 in 66 ms. A socket takes
    /// megabytes, which are half a second.
    @Test(arguments: [Technique.preCopy, .migrror])
    func theFreezeDoesNotWaitForAFullSocket(technique: Technique) async throws {
        let testbed = try TestbedHosts("sl", backhaul: LinkRate("40mbit")!)
        defer { testbed.tearDown() }
        try await testbed.start()
        let hosts = testbed.hosts
        try await hosts.run(["--memory", "16M", "--rate", "5000", "--working-set", "2", "--threads", "1"])
        var plan = MigrationPlan(technique: technique)
        (plan.handover, plan.runUp, plan.freezeLimit) = (.atTrigger, 0, nil)
        (plan.eventPages, plan.minSpacing, plan.waitInterval) = (1, 0, 1)
        let id = try await hosts.a.client.migrate(hosts.container, to: hosts.b.name, plan: plan)
        // The first copy takes 3.4 s.
        try await Task.sleep(for: .seconds(6))
        _ = try await hosts.a.client.handOver(id)
        let end = try await hosts.a.client.wait(for: id, every: .milliseconds(5))
        let report = try #require(end.report, "\(String(describing: end.error))")
        print("\(technique) on a slow link: \(report.engineDowntime) ms, \(report.passes.count) passes")
        #expect(report.passes.count > 10 && report.engineDowntime < 400, "\(report.engineDowntime) ms")
        #expect(try await hosts.verdict(on: hosts.b).contains("\"oracle\":\"ok\""))
    }
}

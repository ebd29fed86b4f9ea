// How long a container stands still: before the promise no longer than its limit, whatever happens to the network;
// after the promise as long as the destination takes.
import Agent
import Foundation
import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct FreezeLimitTests {
    /// Starts a dirtier on the first of two hosts in namespaces, and its migration, which stops at a point of the
    /// source.
    private func withHostsHeld(
        at point: FaultPoint, limit: Double,
        _ body: (FaultHosts, TestbedHosts, _ id: String, _ gate: String) async throws -> Void
    ) async throws {
        let testbed = try TestbedHosts("fl")
        defer { testbed.tearDown() }
        let hosts = testbed.hosts
        let gate = "\(hosts.folder)/gate"
        try await hosts.a.start(fault: "\(point.rawValue):hold=\(gate)")
        try await hosts.b.start()
        try await hosts.run()
        var plan = MigrationPlan(technique: .migrror)
        plan.freezeLimit = limit
        let id = try await hosts.a.client.migrate(hosts.container, to: hosts.b.name, plan: plan)
        try await wait(seconds: 10) { !hosts.hits().isEmpty }
        try await body(hosts, testbed, id, gate)
    }

    /// From now on each host sends frames for the other one to an address that nobody has; or not any more.
    private func link(_ testbed: TestbedHosts, isCut: Bool) throws {
        let hosts = testbed.topology.hosts
        for (here, there) in [(hosts[0], hosts[1]), (hosts[1], hosts[0])] {
            let entry =
                "neigh \(isCut ? "replace" : "del") \(there.backhaulAddress) dev \(here.backhaulLink(to: there))"
            try EdgeNetwork(testbed.topology).ip(
                in: here.namespace, [entry + (isCut ? " lladdr 02:00:00:00:00:66 nud permanent" : "")])
        }
    }

    private func secondsUntilItRuns(_ hosts: FaultHosts, since start: Int64) async throws -> Double {
        try await wait(seconds: 10) { hosts.a.runs(hosts.container) }
        return Double(monotonicNow() - start) / 1e9
    }

    @Test func withACutLinkTheContainerRunsOnAtItsLimitAndMovesWhenTheLinkIsBack() async throws {
        try await withHostsHeld(at: .sourceStopped, limit: 500) { hosts, testbed, id, gate in
            let stopped = try #require(hosts.hits().first).at
            try link(testbed, isCut: true)
            close(creat(gate, 0o600))
            #expect(try await secondsUntilItRuns(hosts, since: stopped) < 0.5 + 1)
            try link(testbed, isCut: false)
            let end = try await hosts.a.client.wait(for: id, every: .milliseconds(5))
            let report = try #require(end.report, "\(String(describing: end.error))")
            #expect(report.handovers.count == 2, "\(report.handovers)")
            #expect(report.handovers[0].postponed?.contains("500 ms, its limit, at the step") == true)
            for handover in report.handovers { #expect(handover.frozen < 500 + 250, "\(report.handovers)") }
            #expect(report.handovers[1].postponed == nil)
            print("freeze limit: \(report.handovers), migration time \(report.migrationTime) ms")
            try await wait { hosts.mistakes().isEmpty }
            #expect(hosts.mistakes().isEmpty, "\(hosts.a.words)\n\(hosts.b.words)")
            #expect(try hosts.place() === hosts.b)
            #expect(try await hosts.verdict(on: hosts.b).contains("\"oracle\":\"ok\""))
        }
    }

    @Test func aLinkThatStaysCutEndsTheMigrationByName() async throws {
        try await withHostsHeld(at: .sourceCaptured, limit: 300) { hosts, testbed, id, gate in
            let stopped = try #require(hosts.hits().first).at
            try link(testbed, isCut: true)
            close(creat(gate, 0o600))
            #expect(try await secondsUntilItRuns(hosts, since: stopped) < 0.3 + 1)
            let end = try await hosts.a.client.wait(for: id, every: .milliseconds(5))
            #expect(Double(monotonicNow() - stopped) / 1e9 < 6)
            #expect(end.error?.code == .unreachable && end.error?.message.contains("no sign of it for 3 s") == true)
            #expect(hosts.a.runs(hosts.container))
            #expect(try await hosts.verdict(on: hosts.a).contains("\"oracle\":\"ok\""))
            try link(testbed, isCut: false)
            try await wait(seconds: 30) { hosts.mistakes().isEmpty }
            #expect(hosts.mistakes().isEmpty, "\(hosts.a.words)\n\(hosts.b.words)")
        }
    }

    /// The destination stops reading, and the socket is full: the frame of pages that is under way is finished later.
    @Test func aFullSocketIsNoReasonToStandStill() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let gate = "\(hosts.folder)/gate"
        try await hosts.a.start()
        try await hosts.b.start(fault: "\(FaultPoint.destinationCopying.rawValue):hold=\(gate)")
        try await hosts.run(["--memory", "64M", "--rate", "2000", "--threads", "2"])
        var plan = MigrationPlan(technique: .cold)
        plan.freezeLimit = 1500
        let id = try await hosts.a.client.migrate(hosts.container, to: hosts.b.address.description, plan: plan)
        try await wait(seconds: 10) { !hosts.hits().isEmpty }
        let hit = try #require(hosts.hits().first).at
        #expect(try await secondsUntilItRuns(hosts, since: hit) < 1.5 + 1)
        close(creat(gate, 0o600))
        let end = try await hosts.a.client.wait(for: id, every: .milliseconds(5))
        let report = try #require(end.report, "\(String(describing: end.error))")
        #expect(report.handovers.first?.postponed?.contains("'send pages'") == true, "\(report.handovers)")
        #expect(report.handovers.allSatisfy { $0.frozen < 1500 + 250 }, "\(report.handovers)")
        print("full socket: \(report.handovers), migration time \(report.migrationTime) ms")
        // What it had written by the first attempt is not there twice.
        #expect(hosts.log(hosts.b).components(separatedBy: "\"ready\"").count == 2, "\(hosts.log(hosts.b))")
        try await wait { hosts.mistakes().isEmpty }
        #expect(hosts.mistakes().isEmpty, "\(hosts.a.words)\n\(hosts.b.words)")
        #expect(try await hosts.verdict(on: hosts.b).contains("\"oracle\":\"ok\""))
    }

    /// After the promise nobody decides by a timeout: a destination that is stopped for longer than its limit and the
    /// limit of silence moves the container when it goes on, and the freeze is reported as long as it was.
    @Test func theLimitEndsAtThePromise() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let gate = "\(hosts.folder)/gate"
        try await hosts.a.start()
        try await hosts.b.start(fault: "\(FaultPoint.destinationPrepared.rawValue):hold=\(gate)")
        try await hosts.run()
        var plan = MigrationPlan(technique: .preCopy)
        plan.freezeLimit = 400
        let id = try await hosts.a.client.migrate(hosts.container, to: hosts.b.address.description, plan: plan)
        try await wait(seconds: 10) { !hosts.hits().isEmpty }
        hosts.b.signal(SIGSTOP)
        try await wait(seconds: 10) { try await hosts.a.client.migration(id).progress.state == .inDoubt }
        let doubtful = try await hosts.a.client.migration(id)
        #expect(doubtful.progress.state == .inDoubt && doubtful.progress.remark?.contains("no sign of") == true)
        #expect(!hosts.a.runs(hosts.container))
        hosts.b.signal(SIGCONT)
        close(creat(gate, 0o600))
        let end = try await hosts.a.client.wait(for: id, every: .milliseconds(5))
        let report = try #require(end.report, "\(String(describing: end.error))")
        #expect(report.handovers.count == 1 && report.engineDowntime > 3000, "\(report.handovers)")
        try await wait { hosts.mistakes().isEmpty }
        #expect(hosts.mistakes().isEmpty, "\(hosts.a.words)\n\(hosts.b.words)")
        #expect(try await hosts.verdict(on: hosts.b).contains("\"oracle\":\"ok\""))
    }

    /// While it is copied: the other agent is stopped, its kernel still acknowledges everything.
    /// Also by a source that sleeps until so many pages have faulted that it never wakes.
    @Test(arguments: [(true, false), (true, true), (false, false)])
    func aStoppedAgentIsNoticedIn3Seconds(_ isDestination: Bool, _ sleeps: Bool) async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        try await hosts.a.start()
        try await hosts.b.start()
        try await hosts.run()
        var plan = MigrationPlan(technique: .migrror)
        plan.handover = .atTrigger
        if sleeps { (plan.events, plan.eventPages) = (.faults, 1_000_000) }
        let id = try await hosts.a.client.migrate(hosts.container, to: hosts.b.address.description, plan: plan)
        try await wait(seconds: 10) { try await hosts.a.client.migration(id).progress.state == .copying }
        let (stopped, other) = isDestination ? (hosts.b, hosts.a) : (hosts.a, hosts.b)
        let start = monotonicNow()
        stopped.signal(SIGSTOP)
        defer { stopped.signal(SIGCONT) }
        try await wait(seconds: 10) { try await other.client.migrations().last?.isOver == true }
        let took = Double(monotonicNow() - start) / 1e9
        #expect(took > 2 && took < 5, "\(took) s")
        let error = try await other.client.migrations().last?.error
        #expect(error?.code == .unreachable && error?.message.contains("no sign of it for 3 s") == true)
        stopped.signal(SIGCONT)
        try await wait { hosts.mistakes().isEmpty }
        #expect(hosts.mistakes().isEmpty, "\(hosts.a.words)\n\(hosts.b.words)")
        #expect(try hosts.place() === hosts.a)
        #expect(try await hosts.verdict(on: hosts.a).contains("\"oracle\":\"ok\""))
    }
}

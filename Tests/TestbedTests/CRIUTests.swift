// The baseline: containers moved by CRIU keep their memory and connections; a restore that fails costs nothing.
import Agent
import Containers
import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

struct CRIUUnitTests {
    @Test func versionIsFound() {
        #expect(CRIU.version(in: "Version: 4.2.1\nGitID: v4.2.1\n") == "4.2.1")
        #expect(CRIU.version(in: "criu: not found") == nil)
    }

    @Test func outputIsNamedAsCRIUNamesIt() {
        #expect(CRIUOutput.mount(in: "pos:\t42\nflags:\t0102001\nmnt_id:\t27\nino:\t9750806\n") == 27)
        #expect(CRIUOutput.mount(in: "pos:\t42\n") == nil)
        #expect(
            CRIUOutput(mount: 27, inode: 9_750_806).lines(descriptor: 9)
                == "external file[1b:94c916]\ninherit-fd fd[9]:file[1b:94c916]\n")
    }

    @Test func freezeIsNoticed() {
        func hold(_ freezer: String?, _ events: String? = nil, tracer: Int = 0) -> FreezeWatch.Hold {
            FreezeWatch.hold(freezer: freezer, events: events, status: "Name:\tx\nTracerPid:\t\(tracer)\n")
        }
        #expect(hold("THAWED") == .none && hold(nil, "populated 1\nfrozen 0") == .none)
        #expect(hold("FREEZING") == .begun)
        #expect(hold("FROZEN") == .complete && hold(nil, "populated 1\nfrozen 1") == .complete)
        #expect(hold("THAWED", tracer: 4711) == .complete)
    }

    @Test func hiddenTimeIsPartOfTheDowntime() throws {
        let verdict = DirtierVerdict(
            oracle: "ok", writes: 1, largest: 300_000,
            gaps: [
                .init(microseconds: 300_000, start: 1_000_000_000, end: 1_300_000_000),
                .init(microseconds: 2000, start: 1_500_000_000, end: 1_502_000_000),
            ])
        var report = MigrationReport(plan: MigrationPlan(technique: .cold))
        (report.frozenAt, report.releasedAt, report.clockLag) = (1_010_000_000, 3_310_000_000, 2_000_000_000)
        #expect(verdict.downtime(report) == 2300)
        #expect(verdict.delay(report) == 0)
    }
}

@Suite(.serialized, .enabled(if: geteuid() == 0))
struct CRIUTests {
    /// nil, and the reason is printed: there is none that works on this machine.
    private func criu() -> CRIU? {
        do { return try CRIU.find() } catch {
            print("skipped: \(error)")
            return nil
        }
    }

    /// A testbed with agents, gone afterwards, with nothing left.
    private func onTestbed(_ body: (Testbed) async throws -> Void) async throws {
        let testbed = Testbed(try Topology(instance: "criutest"))
        try testbed.upNetwork(owned: true)
        do {
            try await testbed.waitForAgents(try testbed.spawnAgents(executable: BuiltProgram.path()))
            try await body(testbed)
        } catch {
            testbed.down()
            throw error
        }
        testbed.down()
        #expect(testbed.leftovers().isEmpty)
    }

    private static let dirtier = WorkloadOptions(kind: .dirtier, memory: 16 << 20, dirtyRate: 1000)

    @Test func memoryAndConnectionsSurvive() async throws {
        guard let criu = criu() else { return }
        try await onTestbed { testbed in
            let (source, destination) = (testbed.topology.hosts[0], testbed.topology.hosts[1])
            for options in [Self.dirtier, WorkloadOptions(kind: .redis, memory: 4 << 20)] {
                let workload = testbed.workload(options, programs: ".build/workloads")
                let container = workload.containers[0]
                try await workload.start(on: source)
                let report = try await CRIUMigration(criu).migrate(container, from: source, to: destination)
                let outcome = try await workload.finish(
                    after: [Move(container, from: source, to: destination, report)])
                #expect(outcome.passed, "\(options.kind): \(outcome.verdicts)")
                #expect(report.stateBytes > options.memory && report.bytesSent >= report.stateBytes)
                #expect(report.phases.map(\.name) == ["stage", "checkpoint", "copy", "restore"])
                // Stopped from the freeze to the release: no less was noticed inside than CRIU's own part of it.
                let copy = try #require(report.phases.first { $0.name == "copy" }).duration
                #expect(try #require(outcome.observations[0].workloadDowntime) > copy)
                for host in testbed.topology.hosts {
                    #expect(Leftovers.mounts(below: host.runFolder).isEmpty)
                    #expect(!fileExists("\(host.runFolder)/criu-\(container)"))
                }
            }
        }
    }

    /// Where the kernel has soft-dirty bits (Debian's has): each dump adds to the one before, and the last one is
    /// small.
    @Test(arguments: [Technique.preCopy, .migrror])
    func dumpsAheadAddUp(technique: Technique) async throws {
        guard let criu = criu() else { return }
        if let obstacle = criu.obstacleToRounds() { return print("skipped: \(obstacle)") }
        try await onTestbed { testbed in
            let (source, destination) = (testbed.topology.hosts[0], testbed.topology.hosts[1])
            let workload = testbed.workload(Self.dirtier, programs: ".build/workloads")
            try await workload.start(on: source)
            var plan = MigrationPlan(technique: technique)
            (plan.maxRounds, plan.eventPages) = (3, 64)
            let report = try await CRIUMigration(criu, plan).migrate(
                workload.containers[0], from: source, to: destination, triggerAfter: 3)
            let outcome = try await workload.finish(
                after: [Move(workload.containers[0], from: source, to: destination, report)])
            #expect(outcome.passed, "\(outcome.verdicts)")
            #expect(report.passes.count > 2 && report.passes[0].pages >= Self.dirtier.memory / 4096)
            #expect(report.passes.last!.pages < report.passes[0].pages, "\(report.passes.map(\.pages))")
        }
    }

    @Test func failedRestoreRunsOnAtTheSource() async throws {
        guard let criu = criu() else { return }
        try await onTestbed { testbed in
            let (source, destination) = (testbed.topology.hosts[0], testbed.topology.hosts[1])
            let redis = testbed.workload(.init(kind: .redis, memory: 4 << 20), programs: ".build/workloads")
            let name = redis.containers[0]
            try await redis.start(on: source)
            let agents = (AgentClient(host: source.name), AgentClient(host: destination.name))
            let info = try await agents.0.container(name)
            let to = try CRIUHost(destination, try await agents.1.host().layout, container: name, criu)
            let move = CRIUMove(
                info.record, pid: info.pid,
                from: try CRIUHost(source, try await agents.0.host().layout, container: name, criu), to: to)
            try move.stage()
            // The program that the restore wants to map.
            removeTree(to.container.rootfs + "/usr")
            let error = try #require(throws: RuntimeError.self) { try move.handOver(waited: false) }
            #expect(error.description.contains("restoring container \(name)"))
            #expect(try await agents.0.container(name).isRunning)
            #expect(try await agents.1.containers().isEmpty)
            try await Task.sleep(for: .milliseconds(500))
            let outcome = try await redis.finish(after: [Move(name, from: source, to: destination, nil)])
            // What waited at the destination is gone, so the client's own timer has to repeat it.
            let wrong = outcome.verdicts.filter { !$0.passed && !$0.name.contains("retransmission") }
            #expect(wrong.isEmpty, "\(wrong)")
            for host in testbed.topology.hosts { #expect(Leftovers.mounts(below: host.runFolder).isEmpty) }
        }
    }
}

// Agents as processes, as an operator meets them.
import Agent
import Containers
import Foundation
import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct OperatorTests {
    @Test func runEndsAsAProgramDoesThatEndsAtOnce() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        try await hosts.a.start()
        for (index, (script, status, words)) in [
            ("exit 3", 3, "status 3"), ("kill -9 $$; sleep 1", 0, "runs as pid"), ("exit 0", 0, "status 0"),
        ].enumerated() {
            var builder = BundleBuilder(programs: ["/bin/busybox"], arguments: ["/bin/busybox", "sh", "-c", script])
            builder.links = ["sh", "sleep"]
            let name = "end-\(index)"
            try builder.build(in: "\(hosts.folder)/\(name)")
            let run = try hosts.apus(["run", name, "\(hosts.folder)/\(name)", "--host", hosts.a.name])
            // A container's first process cannot kill itself: it runs on.
            #expect(run.status == status && run.output.contains(words), "\(script): \(run)")
        }
        let kill = try hosts.apus(["kill", "end-1", "-s", "KILL", "--host", hosts.a.name])
        #expect(kill.status == 0, "\(kill)")
        try await wait { try await hosts.a.client.container("end-1").record.exit != nil }
        let list = try hosts.apus(["ps", "--host", hosts.a.name])
        for words in ["stopped, status 3", "stopped, signal 9", "stopped, status 0"] {
            #expect(list.output.contains(words), "\(list.output)")
        }
        let holder = "\(workloads)/holder", bundle = "\(hosts.folder)/leader"
        try BundleBuilder(programs: [holder], arguments: [holder, "leader"]).build(in: bundle)
        let run = try hosts.apus(["run", "leader", bundle, "--host", hosts.a.name])
        #expect(run.status == 0 && run.output.contains("goes on without its first thread"), "\(run)")
    }

    @Test func anAgentWithoutCgroupsIsRefusedAndSaysHowToStartIt() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let name = "op\(getpid())", network = NamedNetwork(name)
        try Subprocess.run(["ip", "netns", "add", name])
        defer { _ = try? Subprocess.run(["ip", "netns", "del", name]) }
        #expect(network.exists)
        let arguments = ["agent", "--host", hosts.a.name, "--state", hosts.a.layout.stateFolder]
        let inside = try ChildProcess(
            "ip", ["netns", "exec", name, program] + arguments,
            output: try FileDescriptor(opening: "\(hosts.folder)/inside", O_WRONLY | O_CREAT), diesWithParent: true)
        let status = inside.wait(seconds: 10)
        let said = try SmallFile.text("\(hosts.folder)/inside")
        #expect(
            status == 4 << 8 && said.contains("no cgroup file system is mounted") && said.contains("--netns"), "\(said)"
        )
        // As it says.
        let host = try FaultHost(hosts.a.name, in: hosts.folder, arguments: arguments + ["--netns", name])
        try await host.start()
        host.kill()
    }

    @Test func aPortThatIsMissingIsNamedAtTheStart() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let host = try FaultHost(
            hosts.a.name, in: hosts.folder,
            arguments: [
                "agent", "--host", hosts.a.name, "--state", hosts.a.layout.stateFolder, "--bridge", "no-br",
                "--backhaul",
                "no-port",
            ])
        let error = await #expect(throws: Wrong.self) { try await host.start() }
        #expect(error?.description.contains("there is no bridge no-br") == true, "\(String(describing: error))")
    }

    @Test func aCrashEndsAnAgentAtOnce() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        try await hosts.a.start()
        let pid = try await hosts.a.client.host().pid
        let caught = try ProcessStatus(pid: pid).hex("SigCgt")
        for number in [SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV] {
            #expect(caught & 1 << UInt64(number - 1) == 0, "signal \(number) is caught")
        }
        let start = monotonicNow()
        kill(pid, SIGILL)
        try await wait(seconds: 10) { !hosts.a.isRunning }
        #expect(monotonicNow() - start < 1_000_000_000 && !hosts.a.isRunning)
        #expect(!hosts.a.words.contains("Backtrace"))
    }

    @Test func aMigrationWaitsForTheEndOfTheOneThatWasCancelled() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let gate = "\(hosts.folder)/gate"
        try await hosts.a.start()
        try await hosts.b.start(fault: "\(FaultPoint.destinationCreated.rawValue):hold=\(gate)")
        try await hosts.run()
        let to = hosts.b.address.description, plan = MigrationPlan(technique: .preCopy)
        let first = try await hosts.a.client.migrate(hosts.container, to: to, plan: plan)
        try await wait(seconds: 10) { !hosts.hits().isEmpty }
        try await hosts.a.client.cancel(first)
        let cancelled = try await hosts.a.client.wait(for: first, every: .milliseconds(5))
        #expect(cancelled.error?.code == .cancelled)
        // The destination is still at work on it.
        let second = try await hosts.a.client.migrate(hosts.container, to: to, plan: plan)
        try await Task.sleep(for: .milliseconds(500))
        #expect(try await !hosts.a.client.migration(second).isOver)
        close(creat(gate, 0o600))
        let end = try await hosts.a.client.wait(for: second)
        #expect(end.error == nil, "\(String(describing: end.error))")
        try await wait { hosts.mistakes().isEmpty }
        #expect(hosts.mistakes().isEmpty && (try? hosts.place()) === hosts.b, "\(hosts.a.words)\n\(hosts.b.words)")
        #expect(try await hosts.verdict(on: hosts.b).contains("\"oracle\":\"ok\""))
    }

    @Test(arguments: [true, false]) func aContainerThatHasJustArrivedCanBeRemovedAndMovedOn(_ removing: Bool)
        async throws
    {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let gate = "\(hosts.folder)/gate"
        try await hosts.a.start()
        try await hosts.b.start(fault: "\(FaultPoint.destinationTold.rawValue):hold=\(gate)")
        try await hosts.run()
        let plan = MigrationPlan(technique: .migrror)
        let first = try await hosts.a.client.migrate(hosts.container, to: hosts.b.address.description, plan: plan)
        let end = try await hosts.a.client.wait(for: first, every: .milliseconds(5))
        #expect(end.error == nil, "\(String(describing: end.error))")
        // The source is done, and the destination still at work on it.
        #expect(try await !hosts.b.client.migration(first).isOver)
        Task.detached {
            try await Task.sleep(for: .milliseconds(300))
            close(creat(gate, 0o600))
        }
        if removing {
            try await hosts.b.client.remove(hosts.container, force: true)
            #expect(!hosts.b.runs(hosts.container) && !hosts.a.runs(hosts.container))
        } else {
            let back = try await hosts.b.client.migrate(
                hosts.container, to: hosts.a.address.description, plan: plan)
            let end = try await hosts.b.client.wait(for: back)
            #expect(end.error == nil, "\(String(describing: end.error))")
            #expect((try? hosts.place()) === hosts.a)
        }
    }

    @Test func anOutcomeIsForgottenThoughTheSourcesLastWordWasLost() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let gate = "\(hosts.folder)/gate"
        try await hosts.a.start(fault: "\(FaultPoint.sourceReleased.rawValue):hold=\(gate)")
        try await hosts.b.start()
        try await hosts.run()
        let to = hosts.b.address
        let id = try await hosts.a.client.migrate(
            hosts.container, to: to.description, plan: MigrationPlan(technique: .preCopy))
        try await wait(seconds: 10) { !hosts.hits().isEmpty }
        // Both kernels forget the connection before the source says that its copy is gone.
        let host = to.description.split(separator: ":")[0]
        let killed = try Subprocess.run(["ss", "--kill", "--no-header", "--tcp", "src", String(host)])
        #expect(killed.text.contains(String(host)), "the connection was not there: \(killed.text)")
        let migrations = "\(hosts.b.layout.runFolder)/migrations"
        try await wait { try Folder.names(migrations) == [id + ".released"] }
        close(creat(gate, 0o600))
        #expect(try await hosts.a.client.wait(for: id, every: .milliseconds(5)).error == nil)
        try await wait { try Folder.names(migrations).isEmpty }
        #expect(try Folder.names(migrations) == [])
        #expect((try? hosts.place()) === hosts.b)
    }
}

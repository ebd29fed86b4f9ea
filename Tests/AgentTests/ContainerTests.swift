// Real containers through the API.
import Containers
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration
import Synchronization
import Testing

@testable import Agent

@Suite(
    .enabled(if: isRoot && Subprocess.find("runc") != nil && access("/bin/busybox", X_OK) == 0), .serialized,
    .timeLimit(.minutes(3)))
struct ContainerTests {
    @Test func runWatchKillRemove() async throws {
        try await withAgent { test in
            let client = test.client
            let bundle = try test.bundle("trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.1; done")
            let started = try await client.run(RunRequest(name: "web", bundle: bundle))
            #expect(started.isRunning && started.pid > 0 && started.record.arguments.first == "/bin/sh")
            #expect(try await eventually { String(decoding: try await client.log("web"), as: UTF8.self) == "hello\n" })
            #expect(try await client.log("web", from: 6).isEmpty)
            #expect(try await client.log("web", from: UInt64.max).isEmpty)

            // The container does not share the bundle's files.
            #expect(access(bundle + "/rootfs/bin/busybox", F_OK) == 0)
            #expect(unlink(bundle + "/rootfs/bin/busybox") == 0)
            #expect(try await client.containers().map(\.status) == ["running"])

            let taken = await refusal { () throws(AgentError) in
                try await client.run(RunRequest(name: "web", bundle: bundle))
            }
            #expect(taken?.code == .nameTaken)
            #expect(await refusal { () throws(AgentError) in try await client.remove("web") }?.code == .wrongState)

            try await client.kill("web", signal: SIGTERM)
            #expect(try await eventually { try await client.container("web").status == "stopped" })
            #expect(try await String(decoding: client.log("web"), as: UTF8.self) == "hello\nbye\n")
            #expect(await refusal { () throws(AgentError) in try await client.kill("web") }?.code == .wrongState)
            #expect(await refusal { () throws(AgentError) in try await client.inspect("web") }?.code == .wrongState)
            try await client.remove("web")
            #expect(try await client.containers().isEmpty)
            #expect(try !test.agent.layout.container("web").exists)
        }
    }

    /// What would refuse a migration, `inspect` says too: here a socket without a network, and a first thread that is
    /// gone, after which the runtime takes the container for stopped.
    @Test func inspectSaysWhatAMigrationWould() async throws {
        try await withAgent { test in
            let client = test.client, holder = FileManager.default.currentDirectoryPath + "/.build/workloads/holder"
            for kind in ["udp", "leader"] {
                let bundle = "\(test.folder)/\(kind)"
                try Folder.create(bundle)
                _ = try BundleBuilder(programs: [holder], arguments: [holder, kind]).build(in: bundle)
                _ = try await client.run(RunRequest(name: kind, bundle: bundle))
                #expect(try await eventually { try await !client.log(kind).isEmpty })
            }
            let obstacles = try await client.inspect("udp").obstacles.map(\.sentence)
            #expect(obstacles.contains { $0.contains("a socket, and the container has no network of its own") })

            #expect(try await eventually { try await client.container("leader").status == "stopped" })
            let ended = "it has ended while 1 other threads go on, not carried yet"
            let inspected = await refusal { () throws(AgentError) in try await client.inspect("leader") }
            let plan = MigrationPlan(technique: .cold)
            let moved = await refusal { () throws(AgentError) in
                try await client.migrate("leader", to: "there", plan: plan)
            }
            #expect(inspected?.message.contains(ended) == true && moved?.message.contains(ended) == true)
            for kind in ["udp", "leader"] {
                let cgroup = test.agent.layout.cgroup(of: kind)
                #expect(!CgroupPlace.processes(of: cgroup).isEmpty)
                #expect(await refusal { () throws(AgentError) in try await client.remove(kind) }?.code == .wrongState)
                try await client.remove(kind, force: true)
                #expect(CgroupPlace.processes(of: cgroup).isEmpty, "\(kind) runs on")
            }
        }
    }

    /// Who has seen that a migration has ended may ask for the container at once.
    @Test func aContainerIsFreeOnceItsMigrationHasEnded() async throws {
        try await withAgent { test in
            let migrations = test.agent.migrations, containers = test.agent.containers
            for round in 0..<2000 {
                let id = "arrival-\(round)"
                _ = try migrations.begin(
                    id, .incoming, container: "web", peer: "there", plan: MigrationPlan(technique: .cold))
                let thread = try OwnThread("apus-test") { migrations.end(id, .success(nil)) }
                defer { thread.join() }
                while migrations.active(of: "web") != nil {}
                try containers.hold("web", "being used")
                containers.release("web")
            }
        }
    }

    @Test func aRestartedAgentFindsItsContainers() async throws {
        let first = try await TestAgent()
        let bundle = try first.bundle("echo up; sleep 60")
        let pid = try await first.client.run(RunRequest(name: "web", bundle: bundle)).pid
        await first.stop()
        let second = try await TestAgent(folder: first.folder)
        let found = try await second.client.containers()
        #expect(found.map(\.record.name) == ["web"] && found.map(\.pid) == [pid] && found.map(\.status) == ["running"])
        try await second.client.remove("web", force: true)
        // Gone, once its new parent has collected it.
        #expect(await eventually { kill(pid, 0) != 0 })
        await second.remove()
    }

    @Test func whatDoesNotStartLeavesNothing() async throws {
        try await withAgent { test in
            let client = test.client
            let bundle = try test.bundle("true")
            unlink(bundle + "/rootfs/bin/sh")
            let error = await refusal { () throws(AgentError) in
                try await client.run(RunRequest(name: "web", bundle: bundle))
            }
            #expect(
                error?.code == .runtimeFailed && error?.message.contains("/bin/sh") == true,
                "\(String(describing: error))")
            let network = RunRequest.Network(addresses: ["10.0.0.2/24"])
            let bridge = await refusal { () throws(AgentError) in
                try await client.run(RunRequest(name: "web", bundle: bundle, network: network))
            }
            #expect(bridge?.code == .refused && bridge?.advice?.contains("--bridge") == true)
            #expect(try await client.containers().isEmpty)
            #expect(try !test.agent.layout.container("web").exists)
            #expect(try test.agent.runtime.list().isEmpty)
        }
    }

    @Test func migrationsAreSteeredAndRemembered() async throws {
        try await withAgent { test in
            let client = test.client
            _ = try await client.run(RunRequest(name: "web", bundle: try test.bundle("sleep 60")))
            let plan = MigrationPlan(technique: .migrror)
            let id = try await client.migrate("web", to: "there", plan: plan)
            #expect(try await eventually { try await client.migration(id).progress.pagesSent == 1000 })
            #expect(try await client.container("web").migration == id)
            // One thing at a time.
            let second = await refusal { () throws(AgentError) in
                try await client.migrate("web", to: "there", plan: plan)
            }
            #expect(second?.code == .busy && second?.message.contains("moving to there") == true)
            #expect(
                await refusal { () throws(AgentError) in try await client.remove("web", force: true) }?.code == .busy)
            #expect(
                await refusal { () throws(AgentError) in try await client.resolve(id, keep: .source) }?.code
                    == .wrongState)

            try await client.cancel(id)
            let cancelled = try await client.wait(for: id)
            #expect(cancelled.isOver && cancelled.error?.code == .cancelled && cancelled.report == nil)
            #expect(cancelled.progress.state == .aborted)
            #expect(try await client.container("web").migration == nil)
            #expect(await refusal { () throws(AgentError) in try await client.cancel(id) }?.code == .wrongState)

            let next = try await client.migrate("web", to: "127.0.0.1:10", plan: plan)
            try await client.handOver(next)
            let done = try await client.wait(for: next)
            #expect(done.report?.destination == "127.0.0.1:10" && done.error == nil && done.progress.state == .retired)

            test.script.failure.withLock {
                $0 = MigrationError(.refused, "fd 9 of pid 1 (sh): io_uring, not carried yet")
            }
            let refused = try await client.migrate("web", to: "there", plan: plan)
            let end = try await client.wait(for: refused)
            #expect(end.error?.code == .refused && end.error?.message.contains("io_uring") == true)
            #expect(try await client.migrations().map(\.id) == [id, next, refused])
            let here = test.agent.layout.hostName
            #expect(
                await refusal { () throws(AgentError) in try await client.migrate("web", to: here, plan: plan) }?.code
                    == .hostUnknown)
        }
    }

    @Test func aLogOfAnyLengthArrivesWhole() async throws {
        try await withAgent { test in
            let bundle = try test.bundle("sleep 60")
            _ = try await test.client.run(RunRequest(name: "web", bundle: bundle))
            let path = try await test.client.container("web").log
            let text = (0..<400_000).map { "line \($0) of the log\n" }.joined()
            let log = try FileDescriptor(opening: path, O_WRONLY | O_APPEND)
            try Array(text.utf8).withUnsafeBytes { try log.write($0) }
            #expect(text.utf8.count > 8 << 20)
            #expect(try await test.client.log("web") == Array(text.utf8))
            #expect(try await test.client.log("web", from: 1 << 20) == Array(text.utf8.dropFirst(1 << 20)))
            let pieces = Mutex<[[UInt8]]>([])
            try await test.client.log("web", from: 5) { piece in pieces.withLock { $0.append(piece) } }
            let got = pieces.withLock { $0 }
            #expect(got.count > 8 && Array(got.joined()) == Array(text.utf8.dropFirst(5)))
            let unknown = await refusal { () throws(AgentError) in
                try await test.client.log("nobody", from: 0) { _ in Issue.record("a piece of no log") }
            }
            #expect(unknown?.code == .containerUnknown)
        }
    }

    /// Descriptors of this process that are eventfds.
    private var eventDescriptors: Int {
        ((try? Folder.names("/proc/self/fd")) ?? []).filter {
            (try? ProcessFiles.link("/proc/self/fd/\($0)"))?.contains("[eventfd]") == true
        }.count
    }

    @Test func longReportsArriveWholeAndListsHaveNone() async throws {
        try await withAgent { test in
            let client = test.client
            _ = try await client.run(RunRequest(name: "web", bundle: try test.bundle("sleep 60")))
            test.script.passes.withLock { $0 = 20_000 }
            let before = eventDescriptors
            var ids: [String] = []
            for _ in 0..<12 {
                let id = try await client.migrate("web", to: "there", plan: MigrationPlan(technique: .migrror))
                try await client.handOver(id)
                ids.append(id)
                let end = try await client.wait(for: id, every: .milliseconds(5))
                #expect(end.report?.passes.count == 20_000)
            }
            let list = try await client.migrations()
            #expect(list.map(\.id) == ids && list.allSatisfy { $0.report?.passes.isEmpty == true })
            // Of the last ten the agent has all, of those before them the figures.
            let kept = [try await client.migration(ids[0]), try await client.migration(ids[11])]
            #expect(kept.map { $0.report?.passes.count } == [0, 20_000])
            #expect(eventDescriptors == before, "descriptors of migrations that are over")
        }
    }

    @Test func howAProgramEndsIsKnown() async throws {
        try await withAgent { test in
            let client = test.client
            let soon = try await client.run(RunRequest(name: "soon", bundle: try test.bundle("exit 3")))
            #expect(soon.pid == 0 && soon.status == "stopped" && soon.record.exit?.status == 3, "\(soon)")
            let well = try await client.run(RunRequest(name: "well", bundle: try test.bundle("exit 0")))
            #expect(well.record.exit?.status == 0 && well.record.exit?.signal == nil)
            let later = try await client.run(RunRequest(name: "later", bundle: try test.bundle("sleep 60")))
            #expect(later.isRunning && later.record.exit == nil)
            try await client.kill("later", signal: SIGKILL)
            #expect(try await eventually { try await client.container("later").record.exit?.signal == SIGKILL })
            // It is in the list, and in a container's record: an agent that starts later knows it, too.
            #expect(try await client.containers().compactMap { $0.record.exit?.status } == [3, 0])
        }
    }

    @Test func aRestartedAgentSeesTheEndOfItsContainers() async throws {
        let first = try await TestAgent()
        let bundle = try first.bundle("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")
        _ = try await first.client.run(RunRequest(name: "web", bundle: bundle))
        let isUp = try await eventually { try await !first.client.log("web").isEmpty }
        #expect(isUp)
        await first.stop()
        let second = try await TestAgent(folder: first.folder)
        do {
            try await second.client.kill("web", signal: SIGTERM)
            #expect(try await eventually { try await second.client.container("web").record.exit?.status == 7 })
        } catch { Issue.record(error) }
        await second.remove()
    }
}

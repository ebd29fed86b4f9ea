// Real containers through the API.
import Containers
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration
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
}

// An agent in this process, with everything of its own in temporary folders.
import Containers
import Glibc
import LinuxKernel
import Logging
import Migration
import Synchronization

@testable import Agent

let isRoot = geteuid() == 0

/// Stands for the engine at its protocol: copies until it is told to hand over or to end.
struct ScriptedEngine: MigrationEngine {
    /// What came in, and how it ends.
    final class Script: Sendable {
        let served = Mutex(0)
        let failure = Mutex<MigrationError?>(nil)
        let recovered = Mutex(0)
        /// Passes that a report has.
        let passes = Mutex(0)
    }
    let script: Script

    func migrate(
        _ id: String, container: ContainerRecord, to address: PeerAddress, plan: MigrationPlan,
        control: MigrationControl
    ) throws -> MigrationReport {
        control.update {
            $0.state = .copying
            $0.passes = 3
            $0.pagesSent = 1000
        }
        if let failure = script.failure.withLock({ $0 }) { throw failure }
        while !control.handoverTriggered {
            if control.isCancelled { throw MigrationError(.cancelled, "cancelled; the source runs on") }
            usleep(1000)
        }
        var report = MigrationReport(plan: plan)
        (report.id, report.container, report.destination) = (id, container.name, address.description)
        let passes = script.passes.withLock { $0 }
        report.passes = (0..<passes).map { PassReport(start: Double($0), duration: 1, pages: 1, bytes: 4096) }
        return report
    }
    func serve(connection: FileDescriptor) throws { script.served.withLock { $0 += 1 } }
    func recover() throws { script.recovered.withLock { $0 += 1 } }
}

final class TestAgent: Sendable {
    let agent: Agent
    let client: AgentClient
    let script: ScriptedEngine.Script
    let folder: String

    /// - Parameter folder: that of an earlier agent, whose successor this one is.
    init(folder: String? = nil, scripted: Bool = true) async throws {
        self.folder = folder ?? "/tmp/apus-agent-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        var layout = try HostLayout(hostName: "here-\(getpid())", stateFolder: self.folder + "/state")
        layout.runFolder = self.folder + "/run"
        layout.runtimeRoot = self.folder + "/run/runtime"
        var configuration = AgentConfiguration(layout: layout)
        configuration.migrationAddress = PeerAddress("127.0.0.1:\(UInt16.random(in: 20000...30000))")!
        configuration.peers = ["there": PeerAddress("127.0.0.1:9")!]
        let script = ScriptedEngine.Script()
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let parts = scripted ? AgentParts(engine: { _, _ in ScriptedEngine(script: script) }) : .standard
        agent = Agent(configuration, parts: parts, logger: logger)
        client = AgentClient(socketPath: configuration.socketPath)
        self.script = script
        try await agent.start()
    }

    /// A bundle of busybox that runs a shell script.
    func bundle(_ script: String) throws -> String {
        var builder = BundleBuilder(programs: ["/bin/busybox"], arguments: ["/bin/sh", "-c", script])
        builder.links = ["sh", "sleep", "echo", "cat"]
        let path = "\(folder)/bundle-\(UInt32.random(in: 0...UInt32.max))"
        try Folder.create(path)
        _ = try builder.build(in: path)
        return path
    }

    func stop() async { await agent.stop() }

    /// Removes whatever is left.
    func remove() async {
        for container in (try? await client.containers()) ?? [] {
            try? await client.remove(container.record.name, force: true)
        }
        await agent.stop()
        _ = try? Cgroup.removeEmpty(agent.layout.cgroupParent)
        try? Folder.remove(folder)
    }
}

/// Asks again until it is so, for at most ten seconds.
func eventually(_ isSo: () async throws -> Bool) async rethrows -> Bool {
    for _ in 0..<200 {
        if try await isSo() { return true }
        try? await Task.sleep(for: .milliseconds(50))
    }
    return false
}

/// Runs `body` with an agent and takes everything away afterwards.
func withAgent(scripted: Bool = true, _ body: (TestAgent) async throws -> Void) async throws {
    let agent = try await TestAgent(scripted: scripted)
    do { try await body(agent) } catch {
        await agent.remove()
        throw error
    }
    await agent.remove()
}

/// The error that a call throws; nil if it throws none.
func refusal<T>(_ body: () async throws(AgentError) -> T) async -> AgentError? {
    do {
        _ = try await body()
        return nil
    } catch { return error }
}

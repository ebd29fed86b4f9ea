// A host's agent: its containers, its migrations, its API.
import CLinux
import Containers
import Engine
import Glibc
import LinuxKernel
import Logging
import Migration
import Synchronization

/// The daemon of a host.
public final class Agent: MigrationHost {
    public let configuration: AgentConfiguration
    public let facts: KernelFacts
    public let containers: ContainerStore
    public let migrations: Migrations
    let logger: Logger
    private let parts: AgentParts
    private let runtimeVersion: String?
    private let running = Mutex<Running?>(nil)

    private struct Running {
        var server: AgentServer?
        let listener: FileDescriptor
        /// flock'd: a second agent of this host cannot start.
        let lock: FileDescriptor
        let engine: any MigrationEngine
    }

    public var layout: HostLayout { configuration.layout }
    public var runtime: any ContainerRuntime { containers.runtime }
    public var migrationAddress: PeerAddress { configuration.migrationAddress }
    public var allowances: Allowances { configuration.allowances }

    /// Prepares an agent; `start` makes it serve.
    public init(_ configuration: AgentConfiguration, parts: AgentParts, logger: Logger) {
        let runtime = Runc(root: configuration.layout.runtimeRoot, program: configuration.runtimeProgram)
        self.configuration = configuration
        self.parts = parts
        self.logger = logger
        runtimeVersion = try? runtime.version()
        facts = KernelProbe(runtime: runtimeVersion.map { "runc \($0)" }).facts
        containers = ContainerStore(configuration, runtime: runtime, logger: logger)
        migrations = Migrations(containers, logger: logger)
    }

    /// Enters the host's network namespace. Call it on the main thread before any other exists: setns(2) changes the
    /// calling thread, and only threads born of it later come along. Mounts stay as they are, unlike under `ip netns
    /// exec`, which would hide the cgroups from the runtime.
    public static func enter(networkNamespace path: String) throws {
        let file: FileDescriptor
        do { file = try FileDescriptor(opening: path, O_RDONLY) } catch {
            throw AgentError(.failed, "\(error)", advice: "`ip netns add` makes /run/netns/NAME")
        }
        try check(clx_setns(file.number, 0x4000_0000 /* CLONE_NEWNET */), "entering network namespace \(path)")
    }

    /// Takes the host, plays back what an earlier agent left, listens, serves.
    public func start() async throws {
        try examineSurroundings()
        try layout.create()
        try Folder.create(layout.runtimeRoot)
        let lock = try FileDescriptor(opening: configuration.lockPath, O_RDWR | O_CREAT)
        // A guard that looks for an agent holds the lock for an instant.
        var tries = 0
        while flock(lock.number, LOCK_EX | LOCK_NB) != 0, tries < 20 {
            usleep(10_000)
            tries += 1
        }
        if tries == 20 {
            throw AgentError(
                .nameTaken, "an agent of host \(layout.hostName) is running",
                advice: "stop it first, or give this one another --host")
        }
        for name in facts.missing {
            logger.warning("this host lacks \(name): migrations will be refused; see `apus doctor`")
        }
        // The cache spares sending what has been here before; it is not to fill the disk.
        try? ContentStore(folder: layout.cacheFolder, digests: DigestCache(file: nil)).prune(toBytes: 4 << 30)
        let engine = parts.engine(self, logger)
        try engine.recover()
        try containers.watchExits()
        unlink(configuration.socketPath)
        let listener = try configuration.migrationAddress.listen()
        if !configuration.migrationAddress.isLoopback {
            logger.warning(
                "listening on \(configuration.migrationAddress): sessions are not authenticated yet, whoever reaches this address can send a container here"
            )
        }
        try listen(on: listener, engine)
        running.withLock { $0 = Running(server: nil, listener: listener, lock: lock, engine: engine) }
        do {
            let server = try await AgentServer(self, socketPath: configuration.socketPath)
            running.withLock { $0?.server = server }
        } catch {
            await stop()
            throw error
        }
        logger.info(
            "agent of host \(layout.hostName) serves \(configuration.socketPath), migrations on \(configuration.migrationAddress)"
        )
    }

    /// What cannot work is said now, not by the first container.
    private func examineSurroundings() throws {
        guard Cgroup.isMounted() else {
            throw AgentError(
                .refused, "no cgroup file system is mounted here, so the runtime cannot make containers",
                advice: "`ip netns exec` hides it: start the agent outside, with --netns NAME")
        }
        guard let bridge = configuration.bridge else { return }
        for port in Set(configuration.ports.values).union([configuration.backhaul].compactMap { $0 }).sorted() {
            do { try ContainerNetwork.makeBackhaul(port, of: bridge) } catch let error as ContainerError {
                throw AgentError(.refused, error.description)
            }
        }
    }

    /// Stops serving. Containers run on; migrations under way are left to the guard.
    public func stop() async {
        let stopped = running.withLock { running in
            defer { running = nil }
            return running
        }
        guard let stopped else { return }
        // Wakes the thread that accepts; the descriptor is closed with its last holder.
        shutdown(stopped.listener.number, Int32(SHUT_RDWR))
        await stopped.server?.stop()
        containers.stopWatchingExits()
        unlink(configuration.socketPath)
        // The runtime leaves empty parent cgroups; those of running containers stay.
        _ = try? Cgroup.removeEmpty(layout.cgroupParent)
        logger.info("agent of host \(layout.hostName) stopped")
    }

    private func listen(on listener: FileDescriptor, _ engine: any MigrationEngine) throws {
        try OwnThread.start("apus-listen") { [logger] in
            while true {
                do {
                    let connection = try PeerAddress.accept(on: listener)
                    try OwnThread.start("apus-serve") {
                        do { try engine.serve(connection: connection) } catch {
                            logger.warning("a session with another agent ended: \(error)")
                        }
                    }
                } catch let error as KernelError where error.errno == .invalid {
                    return  // shut down by `stop`
                } catch {
                    logger.error("\(error)")
                    usleep(100_000)  // out of descriptors or threads: not in a tight loop
                }
            }
        }
    }

    // MARK: - Calls of the API

    func info() -> HostInfo {
        HostInfo(
            name: layout.hostName, pid: getpid(), migrationAddress: configuration.migrationAddress, layout: layout,
            runtime: runtime.kind, runtimeVersion: runtimeVersion, bridge: configuration.bridge,
            peers: configuration.peers, facts: facts, monotonicClock: monotonicNow(), cpuTime: Self.cpuTime())
    }

    private static func cpuTime() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    func allContainers() throws -> [ContainerInfo] {
        try containers.all().map { info in
            var info = info
            info.migration = migrations.active(of: info.record.name)
            return info
        }
    }

    func container(_ name: String) throws -> ContainerInfo {
        var info = try containers.info(name)
        info.migration = migrations.active(of: name)
        return info
    }

    func inspect(_ name: String) throws -> InspectReport {
        let info = try running(name)
        return try ApusEngine.inspect(info.record, pid: info.pid, for: self)
    }

    /// A container that can be looked into and moved: it runs, or it is paused and may run again.
    private func running(_ name: String) throws -> ContainerInfo {
        let info = try containers.info(name)
        if info.isRunning || info.status == "paused" { return info }
        // The runtime takes a container for stopped once its first thread has ended.
        for pid in CgroupPlace.processes(of: layout.cgroup(of: name)) {
            if let ended = ProcessObstacles.endedLeader(pid) { throw AgentError(.refused, "\(ended)") }
        }
        throw AgentError(.wrongState, "container \(name) does not run (\(info.status))")
    }

    /// Starts a migration and returns its identifier.
    func migrate(_ name: String, _ request: MigrateRequest) throws -> String {
        let mistakes = request.plan.mistakes
        if !mistakes.isEmpty { throw AgentError(.badRequest, mistakes.joined(separator: "; ")) }
        guard let address = configuration.peers[request.to] ?? PeerAddress(request.to) else {
            throw AgentError(
                .hostUnknown, "host \(layout.hostName) knows no host \(request.to)",
                advice: (configuration.peers.isEmpty
                    ? "" : "it knows \(configuration.peers.keys.sorted().joined(separator: ", ")); else ")
                    + "give a numeric address with a port, or start the agent with --peer \(request.to)=ADDRESS:PORT")
        }
        if address == configuration.migrationAddress || request.to == layout.hostName {
            throw AgentError(.refused, "container \(name) is on \(request.to) already")
        }
        let info = try running(name)
        guard let engine = running.withLock({ $0?.engine }) else { throw AgentError(.failed, "the agent is stopping") }
        let id = String(UInt64.random(in: 0...0xffff_ffff) | 1 << 32, radix: 16).dropFirst().description
        let control = try migrations.begin(id, .outgoing, container: name, peer: request.to, plan: request.plan)
        do {
            try OwnThread.start("apus-migrate") { [migrations] in
                do {
                    let report = try engine.migrate(
                        id, container: info.record, to: address, plan: request.plan, control: control)
                    control.update { $0.state = .retired }
                    migrations.end(id, .success(report))
                } catch {
                    let error = error as? MigrationError ?? MigrationError(.failed, "\(error)")
                    control.update { $0.state = error.kind == .inDoubt ? .inDoubt : .aborted }
                    migrations.end(id, .failure(error))
                }
            }
        } catch {
            migrations.end(id, .failure(MigrationError(.failed, "\(error)")))
            throw error
        }
        return id
    }

    // MARK: - MigrationHost

    public func attachment(for container: String, towards peer: Peer) -> NetworkAttachment? {
        containers.attachment(for: container, towards: peer)
    }
    public func record(of container: String) throws -> ContainerRecord? { try containers.record(of: container) }
    public func keep(_ record: ContainerRecord) throws { try containers.keep(record) }
    public func forget(_ container: String) throws { try containers.forget(container) }

    public func begin(
        _ id: String, _ direction: MigrationDirection, container: String, peer: String, plan: MigrationPlan
    ) throws -> MigrationControl {
        do {
            if direction == .incoming, try record(of: container) != nil {
                throw AgentError(
                    .nameTaken, "host \(layout.hostName) has a container \(container) already",
                    advice: "remove it there: `apus rm --host \(layout.hostName) \(container)`")
            }
            return try migrations.begin(id, direction, container: container, peer: peer, plan: plan)
        } catch {
            let error = AgentError(error)
            throw MigrationError(.refused, error.message, advice: error.advice)
        }
    }

    public func awaitEnd(ofArrival container: String, from peer: String) {
        migrations.awaitEnd(ofArrival: container, from: peer)
    }

    public func end(_ id: String, _ result: Result<MigrationReport?, MigrationError>) { migrations.end(id, result) }
}

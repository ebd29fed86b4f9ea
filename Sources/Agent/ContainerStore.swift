// The containers of this host: made, listed, ended, removed.
import Containers
import Glibc
import LinuxKernel
import Logging
import Migration
import Synchronization

/// What this host knows of its containers. Records are files, states are the runtime's: a restarted agent finds both.
/// Calls block; any thread may make them.
public final class ContainerStore: Sendable {
    let layout: HostLayout
    let runtime: any ContainerRuntime
    private let configuration: AgentConfiguration
    private let logger: Logger
    /// Containers that something is being done to, and what.
    private let held = Mutex<[String: String]>([:])
    private let gates = Mutex<[String: ActGate]>([:])
    private let exits = ExitWatch()

    init(_ configuration: AgentConfiguration, runtime: any ContainerRuntime, logger: Logger) {
        layout = configuration.layout
        self.configuration = configuration
        self.runtime = runtime
        self.logger = logger
    }

    // MARK: - One thing at a time

    /// Takes a container's name for `reason` ("being removed") until `release`.
    func hold(_ name: String, _ reason: String) throws(AgentError) {
        let before = held.withLock { held -> String? in
            if let before = held[name] { return before }
            held[name] = reason
            return nil
        }
        if let before {
            throw AgentError(.busy, "container \(name) is \(before)", advice: "wait for it to end, or cancel it")
        }
    }

    func release(_ name: String) { held.withLock { held in _ = held.removeValue(forKey: name) } }

    private func holding<T>(_ name: String, _ reason: String, _ body: () throws -> T) throws -> T {
        try hold(name, reason)
        defer { release(name) }
        return try body()
    }

    /// Keeps signals and the like out of a container's handovers.
    func gate(of name: String) -> ActGate {
        gates.withLock { gates in
            let gate = gates[name] ?? ActGate()
            gates[name] = gate
            return gate
        }
    }

    // MARK: - How they end

    /// Watches the containers that run, those of an earlier agent too.
    func watchExits() throws {
        try exits.start { [self] name, exit in
            do {
                guard var record = try record(of: name) else { return }
                record.exit = exit
                try layout.container(name).write(record: record)
                // When a container moves away, its process here is ended by the move.
                let isMoving = held.withLock { $0[name] != nil }
                logger.log(level: isMoving ? .debug : .info, "container \(name) ended: \(exit.words)")
            } catch { logger.error("container \(name) ended (\(exit.words)), which could not be recorded: \(error)") }
        }
        for info in try all() where info.pid > 0 { watchExit(of: info.record.name, pid: info.pid) }
    }

    func stopWatchingExits() { exits.stop() }

    private func watchExit(of name: String, pid: Int32) {
        do { try exits.watch(name, pid: pid) } catch {
            logger.error("container \(name) cannot be watched, so its exit status will not be known: \(error)")
        }
    }

    // MARK: - Knowing

    /// Nil if this host has no such container.
    public func record(of name: String) throws -> ContainerRecord? {
        try layout.container(name).readRecord(as: ContainerRecord.self)
    }

    func known(_ name: String) throws -> ContainerRecord {
        guard let record = try record(of: name) else { throw AgentError.unknown(name, on: layout.hostName) }
        return record
    }

    /// Remembers a container that has come from another host.
    public func keep(_ record: ContainerRecord) throws {
        try layout.container(record.name).write(record: record)
        if let state = try runtime.state(record.name), state.pid > 0 { watchExit(of: record.name, pid: state.pid) }
    }

    /// Removes what this host remembers of a container, not what the runtime holds.
    public func forget(_ name: String) throws {
        exits.forget(name)
        try layout.container(name).remove()
    }

    public func all() throws -> [ContainerInfo] {
        let states = Dictionary(try runtime.list().map { ($0.name, $0) }) { first, _ in first }
        return try layout.containers().compactMap { folder in
            do {
                guard let record = try folder.readRecord(as: ContainerRecord.self) else { return nil }
                return info(record, states[folder.name], folder)
            } catch {
                logger.error("record of container \(folder.name) cannot be read: \(error)")
                return nil
            }
        }
    }

    public func info(_ name: String) throws -> ContainerInfo {
        info(try known(name), try runtime.state(name), try layout.container(name))
    }

    private func info(_ record: ContainerRecord, _ state: ContainerState?, _ folder: ContainerDirectory)
        -> ContainerInfo
    {
        ContainerInfo(status: state?.status.rawValue ?? "lost", pid: state?.pid ?? 0, record: record, log: folder.log)
    }

    /// A container's output.
    func log(of name: String) throws -> ContainerLog {
        _ = try known(name)
        return try ContainerLog(path: try layout.container(name).log)
    }

    // MARK: - Making and ending

    /// What a container's network is attached to here; nil without a bridge.
    func attachment(for name: String) -> NetworkAttachment? { attachment(for: name, backhaul: configuration.backhaul) }

    /// The same while it moves; nil without a port that leads to the other host, too.
    func attachment(for name: String, towards peer: Peer) -> NetworkAttachment? {
        guard let bridge = configuration.bridge, let backhaul = configuration.backhaul(towards: peer) else {
            return nil
        }
        // It may have been made anew since this agent started.
        do { try ContainerNetwork.makeBackhaul(backhaul, of: bridge) } catch {
            logger.error("no container can move to \(peer.name ?? "another host") by \(backhaul): \(error)")
            return nil
        }
        return attachment(for: name, backhaul: backhaul)
    }

    private func attachment(for name: String, backhaul: String?) -> NetworkAttachment? {
        configuration.bridge.map {
            NetworkAttachment(
                container: name, bridge: $0, backhaul: backhaul ?? "", folder: configuration.networksFolder)
        }
    }

    /// Makes and starts a container. If anything fails, nothing of it is left.
    func run(_ request: RunRequest) throws -> ContainerInfo {
        let name = request.name
        guard request.bundle.hasPrefix("/") else {
            throw AgentError(.badRequest, "the bundle's path is not absolute: \(request.bundle)")
        }
        let folder = try layout.container(name)
        return try holding(name, "being started") {
            if folder.exists {
                throw AgentError(
                    .nameTaken, "container \(name) exists on this host",
                    advice: "choose another name, or remove it: `apus rm \(name)`")
            }
            let network = try request.network.map { try spec($0, name) }
            let config = try ContainerConfig(bundle: request.bundle)
            var undo: [(String, () throws -> Void)] = []
            do {
                try folder.create()
                undo.append(("its folder", { try folder.remove() }))
                if let (spec, attachment) = network {
                    try Folder.create(configuration.networksFolder)
                    try attach(spec, attachment)
                    undo.append(("its network", { try ContainerNetwork.detach(spec, attachment) }))
                }
                try copy(config.root(inBundle: request.bundle), to: folder.rootfs)
                let prepared = try config.preparedForRun(
                    .init(
                        root: folder.rootfs, networkNamespace: network?.1.namespace, cgroup: layout.cgroup(of: name),
                        bundle: request.bundle))
                try folder.write(config: config, prepared: prepared)
                undo.append(
                    ("what the runtime made", { [runtime] in try runtime.delete(name, force: true) }))
                let pid = try runtime.create(name, bundle: folder.bundle, log: folder.log)
                let record = ContainerRecord(
                    name: name, since: timestamp(), arguments: config.arguments, bundle: request.bundle,
                    network: network?.0, attachment: network?.1)
                // Before it can end: how it did is written into its record.
                try folder.write(record: record)
                undo.append(("the watch of its end", { [exits] in exits.forget(name) }))
                watchExit(of: name, pid: pid)
                try runtime.start(name)
            } catch {
                for (what, step) in undo.reversed() {
                    do { try step() } catch {
                        logger.error("container \(name) did not start and \(what) stays: \(error)")
                    }
                }
                throw error
            }
            logger.info("container \(name) started from \(request.bundle)")
            // A program that cannot work mostly says so at once: whoever started it shall hear how it ended.
            exits.wait(for: name, milliseconds: 100)
            return try info(name)
        }
    }

    private func attach(_ spec: NetworkSpec, _ attachment: NetworkAttachment) throws {
        do throws(KernelError) { try ContainerNetwork.attach(spec, attachment) } catch {
            guard error.errno == Errno(EADDRINUSE) else { throw error }
            let owner = try all().first { error.operation.contains($0.record.network?.mac.description ?? "nobody") }
            throw AgentError(
                .refused, error.operation + (owner.map { " (container \($0.record.name))" } ?? "") + ": it is in use",
                advice: "choose another --address, or end who has it")
        }
    }

    /// A container owns its root file system: two from one bundle do not meet, and one that moves takes it along.
    private func copy(_ root: String, to folder: String) throws {
        guard access(root + "/.", F_OK) == 0 else {
            throw AgentError(.badRequest, "the bundle's root file system \(root) does not exist")
        }
        do {
            // Owners, modes, times, extended attributes, hard links and holes; blocks are shared where they can be.
            try Subprocess.run(
                ["cp", "-a", "--reflink=auto", "--", root + "/.", folder], timeLimit: .seconds(3600))
        } catch {
            throw AgentError(.failed, "copying \(root): \(error)", advice: "look for space in \(layout.stateFolder)")
        }
    }

    private func spec(_ network: RunRequest.Network, _ name: String) throws -> (NetworkSpec, NetworkAttachment) {
        guard let attachment = attachment(for: name) else {
            throw AgentError(
                .refused, "host \(layout.hostName) has no bridge for a container's network",
                advice: "start its agent with --bridge, or run the container without a network")
        }
        let mac = try network.mac.map { text throws(AgentError) -> MACAddress in
            guard let mac = MACAddress(text) else { throw AgentError(.badRequest, "not a MAC address: \(text)") }
            return mac
        }
        if network.addresses.isEmpty { throw AgentError(.badRequest, "the container's network has no address") }
        // A random address, locally administered and not a group's.
        let random = MACAddress([0x02] + (0..<5).map { _ in UInt8.random(in: 0...255) })!
        return (
            NetworkSpec(mac: mac ?? random, addresses: network.addresses, gateways: network.gateway.map { [$0] } ?? []),
            attachment
        )
    }

    func kill(_ name: String, signal: Int32) throws {
        guard (1...64).contains(signal) else {
            throw AgentError(.badRequest, "not a signal's number (1 to 64): \(signal)")
        }
        _ = try known(name)
        // Sent in the middle of a handover, it would reach the copy that ends.
        let sent: Void? = try gate(of: name).act(patience: Self.handoverPatience) {
            guard try record(of: name) != nil else {
                throw AgentError(
                    .containerUnknown,
                    "container \(name) has moved away from host \(layout.hostName) meanwhile: the signal was not sent",
                    advice: "send it on the host where it is: `apus ps` there lists it")
            }
            guard let state = try runtime.state(name), state.status != .stopped else {
                throw AgentError(.wrongState, "container \(name) does not run", advice: "remove it: `apus rm \(name)`")
            }
            try runtime.kill(name, signal: signal)
        }
        if sent == nil {
            throw AgentError(
                .busy, "container \(name) is being handed over to another host: the signal was not sent",
                advice: "`apus ps` shows how far it is; try again when it is over")
        }
    }
    /// Seconds that a signal waits for the end of a handover.
    private static let handoverPatience = 10.0

    /// Removes a container with everything this host has of it.
    func remove(_ name: String, force: Bool) throws {
        let record = try known(name)
        let cgroup = layout.cgroup(of: name)
        try holding(name, "being removed") {
            if !force, let state = try runtime.state(name), state.status != .stopped {
                throw AgentError(
                    .wrongState, "container \(name) is \(state.status.rawValue)",
                    advice: "stop it first (`apus kill \(name)`), or remove it by force: `apus rm --force \(name)`")
            }
            // The runtime takes a program whose first thread has ended for stopped, whatever its others do.
            if !force, let pid = CgroupPlace.processes(of: cgroup).first {
                throw AgentError(
                    .wrongState, "the first thread of container \(name) has ended, and others go on (pid \(pid))",
                    advice: "remove it by force: `apus rm --force \(name)`")
            }
            try runtime.delete(name, force: true)
            try Cgroup.killProcesses(in: cgroup)
            try Cgroup.removeEmpty(cgroup)
            if let network = record.network, let attachment = record.attachment {
                try ContainerNetwork.detach(network, attachment)
            }
            try forget(name)
            logger.info("container \(name) removed")
        }
    }
}

// Two hosts on this machine, for tests: containers run on one and are moved to the other through real sessions.
import CLinux
import Containers
import Foundation
import Glibc
import LinuxKernel
import Synchronization
@testable import Migration

/// Where `make` puts the workloads.
let workloads = "\(FileManager.default.currentDirectoryPath)/.build/workloads"

/// A pair of hosts without networks for containers; everything they made goes with `tearDown`.
final class TwoHosts: Sendable {
    let folder: String
    let hosts: [SessionHost]
    private let listeners: [FileDescriptor]
    private let delegate = Arrivals()
    private let stop = Mutex(false)

    /// - Parameters:
    ///   - runtime: the destination's runc.
    ///   - destinationSpace: options of a tmpfs for the destination's state folder ("size=1m"); nil: none.
    ///   - allowing: what the destination lets containers have besides their own; `folder` is this object's.
    ///   - sourceFacts, destinationFacts: what else is to be told of the kernels than what is found.
    init(
        runtime: String = "runc", destinationSpace: String? = nil, sourceFacts: (inout KernelFacts) -> Void = { _ in },
        destinationFacts: (inout KernelFacts) -> Void = { _ in },
        allowing: (inout Allowances, _ folder: String) -> Void = { _, _ in }
    ) throws {
        folder = "/tmp/apus-test-\(getpid())-\(UInt32.random(in: 0...999_999))"
        var hosts: [SessionHost] = [], listeners: [FileDescriptor] = []
        try Folder.create("\(folder)/b")
        if let destinationSpace {
            try check(clx_mount("none", "\(folder)/b", "tmpfs", 0, destinationSpace), "mounting a tmpfs")
        }
        for name in ["a", "b"] {
            let layout = try HostLayout(hostName: "test-\(getpid())-\(name)", stateFolder: "\(folder)/\(name)")
            try layout.create()
            let (listener, port) = try Self.listen()
            var host = SessionHost(
                layout: layout, runtime: Runc(root: layout.runtimeRoot, program: name == "b" ? runtime : "runc"),
                address: "127.0.0.1:\(port)")
            host.facts = Self.facts
            if name == "a" { sourceFacts(&host.facts) } else { destinationFacts(&host.facts) }
            if name == "b" { allowing(&host.allowances, folder) }
            hosts.append(host)
            listeners.append(listener)
        }
        (self.hosts, self.listeners) = (hosts, listeners)
        for (host, listener) in zip(hosts, listeners) {
            try OwnThread.start("listener") { [self] in
                while let socket = try? PeerAddress.accept(on: listener) {
                    if stop.withLock({ $0 }) { return }
                    try? OwnThread.start("destination") { [delegate] in
                        let session = try? DestinationSession(host: host, connection: socket, delegate: delegate)
                        session?.run()
                    }
                }
            }
        }
    }

    /// This machine's, found once.
    private static let facts = KernelProbe(runtime: "runc").facts

    static func listen(backlog: Int32 = 8) throws -> (FileDescriptor, UInt16) {
        let socket = try PeerAddress("127.0.0.1:0")!.listen()
        try checkC(Glibc.listen(socket.number, backlog), "listening")
        var address = sockaddr_in(), size = socklen_t(MemoryLayout<sockaddr_in>.size)
        try withUnsafeMutablePointer(to: &address) {
            _ = try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                try checkC(getsockname(socket.number, $0, &size), "asking for the port")
            }
        }
        return (socket, UInt16(bigEndian: address.sin_port))
    }

    /// Runs a static program of the workloads in a container on host `index`.
    ///
    /// - Parameter temporary: tmpfs mounts it has, with their sizes.
    func run(
        _ name: String, _ program: String, _ arguments: [String], temporary: [String: UInt64] = [:], on index: Int = 0,
        _ change: (inout ContainerConfig) -> Void = { _ in }
    ) throws -> RunningContainer {
        let host = hosts[index], directory = try host.layout.container(name)
        try directory.create()
        var builder = BundleBuilder(
            programs: ["\(workloads)/\(program)"], arguments: ["\(workloads)/\(program)"] + arguments)
        builder.temporaryFileSystems = temporary
        let bundle = "\(folder)/bundle-\(name)-\(index)"
        try builder.build(in: bundle)
        var config = try ContainerConfig(bundle: bundle)
        change(&config)
        rmdir(directory.rootfs)
        rename("\(bundle)/rootfs", directory.rootfs)
        let placement = ContainerConfig.Placement(
            root: directory.rootfs, networkNamespace: nil, cgroup: host.layout.cgroup(of: name),
            bundle: directory.bundle)
        try directory.write(config: config, prepared: try config.preparedForRun(placement))
        let pid = try host.runtime.create(name, bundle: directory.bundle, log: directory.log)
        try host.runtime.start(name)
        return RunningContainer(name: name, pid: pid, rootfs: directory.rootfs, network: nil)
    }

    /// Moves a container from one host to the other.
    ///
    /// - Parameter address: where the source finds the other host; nil: where it listens.
    func migrate(
        _ container: RunningContainer, from source: Int = 0, _ plan: MigrationPlan,
        control: MigrationControl = MigrationControl(), id: String = UUID().uuidString, to address: String? = nil
    ) throws -> (MigrationReport, RunningContainer) {
        let host = hosts[source], target = hosts[1 - source]
        guard kill(container.pid, 0) == 0 else {
            throw MigrationError.aborted(
                "the program has ended; its log: \(try log(container.name, on: source).suffix(2000))")
        }
        let report = try OwnThread.run("source") {
            try SourceSession(
                id: id, container: container, host: host, destination: address ?? target.address, plan: plan,
                control: control, connection: PeerAddress(address ?? target.address)!.connectToAgent()
            ).run()
        }.get()
        return (report, try delegate.wait(for: report.id))
    }

    func runtime(_ index: Int) -> any ContainerRuntime { hosts[index].runtime }

    /// How a move from the first host ends that cannot be, with what its destination remembers given time to go.
    ///
    /// - Parameter copying: called when the migration has come so far.
    func failure(
        of container: RunningContainer, _ plan: MigrationPlan, to address: String? = nil,
        copying: ((MigrationControl) throws -> Void)? = nil
    ) -> MigrationError? {
        let control = MigrationControl(), over = Mutex(false)
        return withoutActuallyEscaping(copying ?? { _ in }) { copying in
            nonisolated(unsafe) let copying = copying
            let watcher = try? OwnThread("watcher") {
                while control.progress.state != .copying, !over.withLock({ $0 }) { usleep(1000) }
                usleep(50_000)
                do { try copying(control) } catch {
                    print("watcher: \(error)")
                    control.cancel()
                }
            }
            defer { watcher?.join() }
            do {
                try OwnThread.run("source") {
                    let session = try SourceSession(
                        id: UUID().uuidString, container: container, host: hosts[0],
                        destination: address ?? hosts[1].address, plan: plan,
                        control: control, connection: PeerAddress(address ?? hosts[1].address)!.connectToAgent())
                    session.patience = 1
                    defer { over.withLock { $0 = true } }
                    _ = try session.run()
                }.get()
                return nil
            } catch { return error as? MigrationError ?? MigrationError(.failed, "not typed: \(error)") }
        }
    }

    /// What the destination says to a real offer that was changed.
    func answer(toOfferOf container: RunningContainer, _ change: (inout WireOffer) -> Void) throws -> MigrationError? {
        try answer(to: try offer(of: container, id: UUID().uuidString, change))
    }

    /// A real offer, changed.
    func offer(of container: RunningContainer, id: String, _ change: (inout WireOffer) -> Void) throws -> WireOffer {
        let source = try self.source(of: container, id: id)
        defer { try? source.journal.settle() }
        var offer = try Negotiation(source).makeOffer()
        change(&offer)
        return offer
    }

    /// What a session holds of a container that it is going to move from the first host, and a connection to the second.
    func source(of container: RunningContainer, id: String = UUID().uuidString) throws -> SourceContext {
        try SourceContext(
            id: id, container: container, host: hosts[0], destination: hosts[1].address,
            plan: MigrationPlan(technique: .cold), control: MigrationControl(),
            connection: PeerAddress(hosts[1].address)!.connectToAgent(), decidedAt: monotonicNow())
    }

    /// What the destination says to an offer; nil: it accepts.
    func answer(to offer: WireOffer) throws -> MigrationError? {
        let connection = try Connection(try PeerAddress(hosts[1].address)!.connect(), as: .source)
        connection.limit(seconds: 10)
        try connection.send(.offer, offer)
        do {
            try connection.expect(.accepted, WireAccepted.self)
            return nil
        } catch { return error as? MigrationError }
    }

    /// What an engine left in a container that runs on.
    func traces(of container: RunningContainer) -> [String] {
        var found: [String] = []
        let status = try? ProcessStatus(pid: container.pid)
        if status == nil { found.append("it does not run") }
        if status?["TracerPid"] != "0" { found.append("it is traced") }
        let maps = (try? SmallFile.text("/proc/\(container.pid)/maps")) ?? ""
        found += maps.split(separator: "\n").filter { $0.contains(" rwxs ") }.map { "mapping \($0)" }
        if (try? Folder.names(hosts[0].journals)) != [] { found.append("a journal at the source") }
        // What a session holds goes with it.
        let own = ((try? ProcessFiles.descriptors(of: getpid())) ?? []).compactMap {
            try? ProcessFiles.link("/proc/self/fd/\($0)")
        }
        if own.contains("/proc/\(container.pid)/mem") { found.append("a descriptor of its memory in this process") }
        return found
    }

    /// What of a container there is at the destination. It goes a moment after the source knows that nothing came of
    /// it.
    func leftovers(of container: String) -> [String] {
        var found: [String] = []
        for _ in 0..<2000 {
            found = leftoversNow(of: container)
            if found.isEmpty { break }
            usleep(5000)
        }
        return found
    }

    private func leftoversNow(of container: String) -> [String] {
        let layout = hosts[1].layout, cgroup = layout.cgroup(of: container)
        var found = ((try? Folder.names(layout.containersFolder)) ?? []).map { "folder \($0)" }
        found += ((try? Folder.names(layout.runtimeRoot)) ?? []).map { "runtime's \($0)" }
        found += ((try? Folder.names(hosts[1].journals)) ?? []).filter { !$0.hasSuffix(".aborted") }.map {
            "journal \($0)"
        }
        let mounts = (try? SmallFile.text("/proc/self/mountinfo")) ?? ""
        if mounts.contains(layout.containersFolder + "/") { found.append("a mount in \(layout.containersFolder)") }
        for mount in mounts.split(separator: "\n") where mount.contains(" - cgroup") {
            let path = String(mount.split(separator: " ")[4]) + cgroup
            if access(path, F_OK) == 0 { found.append("cgroup \(path)") }
        }
        for pid in ((try? Folder.names("/proc")) ?? []).compactMap({ Int32($0) }) where !isZombie(pid) {
            if ((try? SmallFile.text("/proc/\(pid)/cgroup")) ?? "").contains(cgroup) { found.append("process \(pid)") }
        }
        return found
    }

    /// The container's log on a host.
    func log(_ name: String, on index: Int) throws -> String {
        try SmallFile.text(hosts[index].layout.container(name).log)
    }

    /// Sends SIGUSR1 and waits for the verdict: the next line of the log.
    func verdict(_ container: RunningContainer, on index: Int) throws -> String {
        let before = try log(container.name, on: index).split(separator: "\n").count
        kill(container.pid, SIGUSR1)
        for _ in 0..<1000 {
            let lines = try log(container.name, on: index).split(separator: "\n")
            if lines.count > before { return String(lines[before]) }
            usleep(10_000)
        }
        // What its threads are at, for whoever has to find out why.
        let folder = "/proc/\(container.pid)/task"
        for task in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] {
            for file in ["syscall", "wchan"] {
                print(task, file, (try? SmallFile.text("\(folder)/\(task)/\(file)")) ?? "-")
            }
            if let text = try? SmallFile.text("\(folder)/\(task)/status") {
                print(
                    text.split(separator: "\n").filter { line in
                        ["State", "Sig", "Shd"].contains { line.hasPrefix($0) }
                    }.joined(separator: " "))
            }
        }
        let end = (try? log(container.name, on: index)).map { String($0.suffix(2000)) } ?? ""
        return "no verdict; its log ends: \(end)"
    }

    /// Waits for the line that says so; a program that ends instead is an error, with what it said.
    func waitUntilReady(_ container: RunningContainer, on index: Int = 0) throws {
        for _ in 0..<2000 where kill(container.pid, 0) == 0 {
            if try log(container.name, on: index).contains("\"ready\"") { return }
            usleep(5000)
        }
        throw MigrationError.aborted(
            "the program is not ready; its log: \(try log(container.name, on: index).suffix(2000))")
    }

    func tearDown() {
        stop.withLock { $0 = true }
        for host in hosts { _ = try? PeerAddress(host.address)!.connect() }
        for host in hosts {
            for state in (try? host.runtime.list()) ?? [] {
                try? host.runtime.delete(state.name, force: true)
                try? Cgroup.killProcesses(in: host.layout.cgroup(of: state.name))
            }
            _ = try? Cgroup.removeEmpty(host.layout.cgroupParent)
            try? FileManager.default.removeItem(atPath: host.layout.runFolder)
        }
        _ = clx_umount("\(folder)/b", 2 /* MNT_DETACH */)
        try? FileManager.default.removeItem(atPath: folder)
        // Only if nobody else uses it.
        rmdir("/run/apus")
    }
}

/// Remembers what arrived.
private final class Arrivals: DestinationDelegate {
    private let arrived = Mutex<[String: RunningContainer]>([:])
    private let failed = Mutex<[String: String]>([:])
    /// Containers that are arriving, by their migrations.
    private let arriving = Mutex<[String: String]>([:])

    func awaitEnd(ofArrival container: String, from host: String) {
        for _ in 0..<10_000 where arriving.withLock({ $0.values.contains(container) }) { usleep(1000) }
    }
    func willReceive(migration: String, container: String, from host: String, plan: MigrationPlan) -> MigrationControl {
        arriving.withLock { $0[migration] = container }
        return MigrationControl()
    }
    func didReceive(migration: String, _ container: RunningContainer, from host: String) {
        arriving.withLock { $0[migration] = nil }
        arrived.withLock { $0[migration] = container }
    }
    func didFail(migration: String, _ error: any Error) {
        print("destination failed: \(error)")
        arriving.withLock { $0[migration] = nil }
        failed.withLock { $0[migration] = "\(error)" }
    }

    func wait(for migration: String) throws -> RunningContainer {
        for _ in 0..<5000 {
            if let container = arrived.withLock({ $0[migration] }) { return container }
            usleep(1000)
        }
        throw MigrationError.aborted(failed.withLock { $0[migration] } ?? "nothing arrived")
    }
}

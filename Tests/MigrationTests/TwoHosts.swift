// Two hosts on this machine, for tests: containers run on one and are moved to the other through real sessions.
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

    init() throws {
        folder = "/tmp/apus-test-\(getpid())-\(UInt32.random(in: 0...999_999))"
        var hosts: [SessionHost] = [], listeners: [FileDescriptor] = []
        for name in ["a", "b"] {
            let layout = try HostLayout(hostName: "test-\(getpid())-\(name)", stateFolder: "\(folder)/\(name)")
            try layout.create()
            let (listener, port) = try Self.listen()
            hosts.append(
                SessionHost(
                    layout: layout, runtime: Runc(root: layout.runtimeRoot), address: "127.0.0.1:\(port)"))
            listeners.append(listener)
        }
        (self.hosts, self.listeners) = (hosts, listeners)
        for (host, listener) in zip(hosts, listeners) {
            startThread("listener") { [self] in
                while let socket = accept(listener) {
                    if stop.withLock({ $0 }) { return }
                    startThread("destination") { [delegate] in
                        let session = try? DestinationSession(host: host, connection: socket, delegate: delegate)
                        session?.run()
                    }
                }
            }
        }
    }

    private static func listen() throws -> (FileDescriptor, UInt16) {
        let socket = FileDescriptor(owning: try checkC(Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0), "making a socket"))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        try withUnsafeMutablePointer(to: &address) {
            try $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                try checkC(bind(socket.number, $0, size), "binding")
                try checkC(Glibc.listen(socket.number, 8), "listening")
                try checkC(getsockname(socket.number, $0, &size), "asking for the port")
            }
        }
        return (socket, UInt16(bigEndian: address.sin_port))
    }

    /// Runs a static program of the workloads in a container on host `index`.
    ///
    /// - Parameter temporary: tmpfs mounts it has, with their sizes.
    func run(
        _ name: String, _ program: String, _ arguments: [String], temporary: [String: UInt64] = [:], on index: Int = 0
    ) throws -> RunningContainer {
        let host = hosts[index], directory = try host.layout.container(name)
        try directory.create()
        var builder = BundleBuilder(programs: ["\(workloads)/\(program)"], arguments: ["\(workloads)/\(program)"] + arguments)
        builder.temporaryFileSystems = temporary
        let bundle = "\(folder)/bundle-\(name)"
        try builder.build(in: bundle)
        let config = try ContainerConfig(bundle: bundle)
        rmdir(directory.rootfs)
        rename("\(bundle)/rootfs", directory.rootfs)
        let placement = ContainerConfig.Placement(
            root: directory.rootfs, networkNamespace: nil, cgroup: host.layout.cgroup(of: name), bundle: directory.bundle)
        try directory.write(config: config, prepared: try config.preparedForRun(placement))
        let pid = try host.runtime.create(name, bundle: directory.bundle, log: directory.log)
        try host.runtime.start(name)
        return RunningContainer(name: name, pid: pid, rootfs: directory.rootfs, network: nil)
    }

    /// Moves a container from one host to the other.
    func migrate(
        _ container: RunningContainer, from source: Int = 0, _ plan: MigrationPlan, control: MigrationControl = MigrationControl()
    ) throws -> (MigrationReport, RunningContainer) {
        let host = hosts[source], target = hosts[1 - source]
        guard kill(container.pid, 0) == 0 else {
            throw MigrationError.aborted("the program has ended; its log: \(try log(container.name, on: source).suffix(2000))")
        }
        let report = try onOwnThread("source") {
            let session = try SourceSession(
                id: UUID().uuidString, container: container, host: host, destination: target.address, plan: plan, control: control,
                connection: connectTo(target.address))
            return try session.run()
        }
        return (report, try delegate.wait(for: report.id))
    }

    func runtime(_ index: Int) -> any ContainerRuntime { hosts[index].runtime }

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
            for file in ["syscall", "wchan"] { print(task, file, (try? SmallFile.text("\(folder)/\(task)/\(file)")) ?? "-") }
            if let text = try? SmallFile.text("\(folder)/\(task)/status") {
                print(text.split(separator: "\n").filter { line in ["State", "Sig", "Shd"].contains { line.hasPrefix($0) } }.joined(separator: " "))
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
        throw MigrationError.aborted("the program is not ready; its log: \(try log(container.name, on: index).suffix(2000))")
    }

    func tearDown() {
        stop.withLock { $0 = true }
        for host in hosts { _ = try? connectTo(host.address) }
        for host in hosts {
            for state in (try? host.runtime.list()) ?? [] { try? host.runtime.delete(state.name, force: true) }
            _ = try? Cgroup.removeEmpty(host.layout.cgroupParent)
            try? FileManager.default.removeItem(atPath: host.layout.runFolder)
        }
        try? FileManager.default.removeItem(atPath: folder)
    }
}

private func accept(_ listener: FileDescriptor) -> FileDescriptor? {
    let socket = Glibc.accept(listener.number, nil, nil)
    return socket < 0 ? nil : FileDescriptor(owning: socket)
}

/// Remembers what arrived.
private final class Arrivals: DestinationDelegate {
    private let arrived = Mutex<[String: RunningContainer]>([:])
    private let failed = Mutex<[String: String]>([:])

    func willReceive(migration: String, container: String, from host: String, plan: MigrationPlan) -> MigrationControl { MigrationControl() }
    func didReceive(migration: String, _ container: RunningContainer, from host: String) { arrived.withLock { $0[migration] = container } }
    func didFail(migration: String, _ error: any Error) {
        print("destination failed: \(error)")
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

// Two hosts with real agents as processes, so that they can be killed, and a container with an oracle.
import Agent
import CLinux
import Containers
import Foundation
import Glibc
import LinuxKernel
import Migration

@testable import Testbed

/// Where `make` puts the workloads, and the program itself.
let workloads = "\(FileManager.default.currentDirectoryPath)/.build/workloads"
let program =
    (try? ProcessFiles.link("/proc/self/exe")).map { "\(($0 as NSString).deletingLastPathComponent)/apus" } ?? "apus"

/// A host with its agent.
final class FaultHost {
    let name: String
    let layout: HostLayout
    let address: PeerAddress
    private let arguments: [String]
    let pidFile: String, guardFile: String, faultLog: String
    private let log: String
    private var agent: ChildProcess?
    var client: AgentClient { AgentClient(host: name) }

    /// - Parameter arguments: what the agent is called with; nil: a host without networks for containers.
    init(
        _ name: String, in folder: String, state: String? = nil, address: PeerAddress? = nil, arguments: [String]? = nil
    ) throws {
        self.name = name
        layout = try HostLayout(hostName: name, stateFolder: state ?? "\(folder)/\(name)")
        self.address = address ?? Self.freeAddress()
        self.arguments =
            arguments ?? ["agent", "--host", name, "--state", layout.stateFolder, "--listen", self.address.description]
        (pidFile, guardFile, faultLog) = ("\(folder)/\(name).pid", "\(folder)/\(name).guard", "\(folder)/faults")
        log = "\(folder)/\(name).log"
    }

    /// One of loopback's sixteen million addresses: a port that is free on 127.0.0.1 now may be anybody's a moment
    /// later.
    private static func freeAddress() -> PeerAddress {
        let bytes = (0..<3).map { _ in String(UInt8.random(in: 1...254)) }.joined(separator: ".")
        return PeerAddress("127.\(bytes):7700")!
    }

    /// Starts the agent and waits until it serves.
    ///
    /// - Parameter boot: what the kernel's boot is called for this agent; nil: as it is.
    func start(fault: String? = nil, boot: String? = nil) async throws {
        var environment = Subprocess.ownEnvironment()
        environment["APUS_FAULT"] = fault
        environment["APUS_FAULT_LOG"] = faultLog
        environment["APUS_GUARD_PIDFILE"] = guardFile
        let output = try FileDescriptor(opening: log, O_WRONLY | O_CREAT | O_APPEND)
        var command = [program] + arguments
        if let boot {
            let file = faultLog + ".boot"
            try boot.write(toFile: file, atomically: true, encoding: .utf8)
            let script = "mount --bind \(file) /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\""
            command = ["unshare", "-m", "--propagation", "private", "sh", "-c", script] + command
        }
        let agent = try ChildProcess(
            command[0], Array(command.dropFirst()),
            environment: environment, output: output, diesWithParent: true)
        self.agent = agent
        try "\(agent.pid)".write(toFile: pidFile, atomically: true, encoding: .utf8)
        for _ in 0..<2000 {
            if (try? await client.host()) != nil { return }
            guard agent.isRunning else { break }
            try await Task.sleep(for: .milliseconds(5))
        }
        throw Wrong("the agent of \(name) does not serve:\n\(words)")
    }
    var isRunning: Bool { agent?.isRunning ?? false }
    /// Neither its agent nor a guard is left: what dies writes the fault log a moment before.
    var isGone: Bool { !isRunning && guards.isEmpty }
    func kill() { agent?.stop(grace: 0) }
    /// Sends the agent a signal.
    func signal(_ number: Int32) { agent?.signal(number) }
    /// What a reboot does: no process of the host is left, nor anything in /run.
    func loseMemory(of container: String) throws {
        agent?.stop(grace: 0)
        for pid in processes(of: container) + guards { Glibc.kill(pid, SIGKILL) }
        for _ in 0..<2000 where !processes(of: container).isEmpty { usleep(1000) }
        try Folder.remove(layout.runFolder)
        _ = try Cgroup.removeEmpty(layout.cgroup(of: container))
    }

    var words: String { (try? String(contentsOfFile: log, encoding: .utf8)) ?? "" }

    /// Processes of the container on this host.
    func processes(of container: String) -> [Int32] {
        let line = ":\(layout.cgroup(of: container))"
        return ((try? Folder.names("/proc")) ?? []).compactMap { Int32($0) }.filter { pid in
            guard let text = try? SmallFile.text("/proc/\(pid)/cgroup") else { return false }
            return text.split(separator: "\n").contains { $0.hasSuffix(line) } && !isDead(pid)
        }
    }

    private var guards: [Int32] {
        ((try? Folder.names("/proc")) ?? []).compactMap { Int32($0) }.filter { pid in
            guard let line = try? SmallFile.read("/proc/\(pid)/cmdline"), !line.isEmpty else { return false }
            let words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            return words.contains("guard") && words.contains(where: { $0.hasPrefix(layout.runFolder + "/") })
        }
    }

    /// Is a copy of the container's own program free to run here?
    func runs(_ container: String) -> Bool {
        let pids = processes(of: container)
        guard pids.count == 1, let link = try? ProcessFiles.link("/proc/\(pids[0])/exe"), !link.hasSuffix(".stub"),
            !link.contains("runc")
        else {
            return false
        }
        guard (try? ProcessStatus(pid: pids[0]))?["TracerPid"] == "0" else { return false }
        guard let place = try? CgroupPlace(pid: pids[0], cgroup: layout.cgroup(of: container)),
            let cgroup = try? Cgroup(place)
        else { return false }
        if (try? cgroup.isFrozen()) != false { return false }
        if let folder = place.unified, (try? SmallFile.text("\(folder)/cgroup.freeze")) == "1" { return false }
        return true
    }

    /// What is here that should not be.
    func leftovers(of container: String, holds: Bool) -> [String] {
        var found: [String] = []
        let journals = (try? Folder.names("\(layout.runFolder)/migrations")) ?? []
        found += journals.filter { !$0.hasSuffix(".aborted") && !$0.hasSuffix(".released") }.map { "journal \($0)" }
        // An abort is remembered until the source's agent, which may be dead, says that it does not know the migration.
        if let marker = journals.first(where: { $0.hasSuffix(".released") }) {
            found.append("word \(marker), though the source is settled")
        }
        found += ((try? Folder.names(layout.containersFolder)) ?? []).filter { !holds || $0 != container }.map {
            "folder of \($0)"
        }
        found += ((try? Folder.names(layout.runtimeRoot)) ?? []).filter { !holds || $0 != container }.map {
            "runtime's \($0)"
        }
        found += guards.map { "guard, pid \($0)" }
        let mounts = (try? SmallFile.text("/proc/self/mountinfo")) ?? ""
        if mounts.contains(layout.stateFolder + "/") { found.append("a mount in \(layout.stateFolder)") }
        let pids = processes(of: container)
        if !holds {
            found += pids.map { "process \($0)" }
            for mount in mounts.split(separator: "\n") where mount.contains(" - cgroup") {
                let path = String(mount.split(separator: " ")[4]) + layout.cgroup(of: container)
                if access(path, F_OK) == 0 { found.append("cgroup \(path)") }
            }
        }
        for pid in pids where holds { found += Self.traces(in: pid) }
        return found
    }

    /// Traces of an engine in a running process.
    static func traces(in pid: Int32) -> [String] {
        var found: [String] = []
        guard let reader = try? MemoryMapReader(pid: pid), (try? reader.refresh()) != nil,
            let memory = try? ProcessMemory(pid: pid)
        else {
            return ["process \(pid) cannot be read"]
        }
        for entry in reader.entries where entry.shared && entry.executable && entry.writable {
            found.append("injected mapping \(entry.range)")
        }
        if let vdso = reader.entries.first(where: { $0.name == "[vdso]" }),
            let tail = try? memory.peek(24, at: vdso.range.upperBound - 24), !tail.allSatisfy({ $0 == 0 })
        {
            found.append("code at the end of the vDSO")
        }
        for number in (try? ProcessFiles.descriptors(of: pid)) ?? [] {
            if let link = try? ProcessFiles.link("/proc/\(pid)/fd/\(number)"), link.contains("userfaultfd") {
                found.append("fd \(number): \(link)")
            }
        }
        if (try? ProcessStatus(pid: pid))?["TracerPid"] != "0" { found.append("process \(pid) is traced") }
        for task in (try? ProcessFiles.tasks(of: pid)) ?? [] {
            let blocked = (try? ProcessStatus(pid: pid, task: task))?.hex("SigBlk") ?? 0
            if blocked == ~UInt64(0x40110) { found.append("task \(task): all signals blocked") }
        }
        return found
    }
}

/// A pair of hosts with a dirtier on the first.
final class FaultHosts {
    let folder: String
    let a: FaultHost, b: FaultHost
    let container = "oracle"

    init() throws {
        let tag = "\(getpid())-\(UInt32.random(in: 0...99_999))"
        folder = "/tmp/apus-faults-\(tag)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        a = try FaultHost("ft-\(tag)-a", in: folder)
        b = try FaultHost("ft-\(tag)-b", in: folder)
    }

    /// The hosts of a testbed, whose network must be up.
    init(_ testbed: Testbed) throws {
        folder = "\(testbed.folder)/faults"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let hosts = try testbed.topology.hosts.map { [folder] host in
            try FaultHost(
                host.name, in: folder, state: testbed.stateFolder(host), address: PeerAddress(host.backhaulAddress),
                arguments: testbed.agentArguments(host))
        }
        (a, b) = (hosts[0], hosts[1])
    }

    /// Starts a dirtier on host a and waits until its memory is filled.
    func run(_ arguments: [String] = ["--memory", "16M", "--rate", "2000", "--threads", "2"]) async throws {
        try await run("dirtier", arguments)
    }

    /// The container's address on a testbed, if it has a network.
    static let address = "10.78.0.10"

    /// Starts a program of the workloads on host a and waits until it says that it is ready.
    ///
    /// - Parameters:
    ///   - hasNetwork: it gets `address`.
    ///   - openFiles: its limit of descriptors; nil: the usual one.
    func run(_ program: String, _ arguments: [String], hasNetwork: Bool = false, openFiles: UInt64? = nil) async throws
    {
        let path = "\(workloads)/\(program)"
        var builder = BundleBuilder(programs: [path], arguments: [path] + arguments)
        if let openFiles { builder.openFiles = openFiles }
        try await run(builder, hasNetwork: hasNetwork)
        try await wait(seconds: 10) { log(a).contains("\"ready\"") }
    }

    /// Starts any program on host a.
    func run(_ builder: BundleBuilder, hasNetwork: Bool) async throws {
        try builder.build(in: "\(folder)/bundle")
        let network = RunRequest.Network(mac: "02:42:0a:4e:00:0a", addresses: ["\(Self.address)/24"])
        _ = try await a.client.run(
            RunRequest(name: container, bundle: "\(folder)/bundle", network: hasNetwork ? network : nil))
    }

    func log(_ host: FaultHost) -> String {
        (try? host.layout.container(container)).flatMap { try? SmallFile.text($0.log) } ?? ""
    }

    /// Asks the oracle.
    func verdict(on host: FaultHost) async throws -> String {
        let count = log(host).split(separator: "\n").count
        for pid in host.processes(of: container) { Glibc.kill(pid, SIGUSR1) }
        for _ in 0..<1000 {
            let lines = log(host).split(separator: "\n")
            if lines.count > count { return String(lines[count]) }
            try await Task.sleep(for: .milliseconds(5))
        }
        return "no verdict"
    }

    /// The host where the one copy runs, or why it is not so.
    func place() throws(Wrong) -> FaultHost {
        let runs = [a, b].filter { $0.runs(container) }
        guard runs.count == 1 else { throw Wrong("\(runs.count) copies run") }
        return runs[0]
    }

    /// Everything that is not as it should be.
    func mistakes() -> [String] {
        let host: FaultHost
        do throws(Wrong) { host = try place() } catch { return [error.description] }
        return [a, b].flatMap { (each: FaultHost) in
            each.leftovers(of: container, holds: each === host).map { "\(each.name): \($0)" }
        }
    }

    /// Instants of hits by number, on the monotonic clock.
    func hits() -> [(point: Int, at: Int64)] {
        ((try? String(contentsOfFile: a.faultLog, encoding: .utf8)) ?? "").split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ")
            guard fields.count == 3, let point = Int(fields[0]), let at = Int64(fields[2]) else { return nil }
            return (point, at)
        }
    }

    /// Starts `apus` with these arguments; what it says is in `commandOutput`.
    func start(_ arguments: [String]) throws -> ChildProcess {
        let output = try FileDescriptor(opening: "\(folder)/command", O_WRONLY | O_CREAT | O_TRUNC)
        return try ChildProcess(program, arguments, output: output, diesWithParent: true)
    }
    var commandOutput: String { (try? String(contentsOfFile: "\(folder)/command", encoding: .utf8)) ?? "" }

    /// Runs `apus` to its end.
    func apus(_ arguments: [String]) throws -> (status: Int32, output: String) {
        let command = try start(arguments)
        guard let status = command.wait(seconds: 20) else {
            command.stop(grace: 0)
            throw Wrong("apus \(arguments) does not end: \(commandOutput)")
        }
        return ((status >> 8) & 0xff, commandOutput)
    }

    func tearDown() {
        for host in [a, b] {
            host.kill()
            if let pid = (try? SmallFile.text(host.guardFile)).flatMap({ Int32($0) }),
                let line = try? SmallFile.text("/proc/\(pid)/cmdline"), line.contains(host.layout.runFolder)
            {
                Glibc.kill(pid, SIGKILL)
            }
        }
        for host in [a, b] {
            for pid in host.processes(of: container) {
                Glibc.kill(pid, SIGKILL)
                if let place = try? CgroupPlace(pid: pid, cgroup: host.layout.cgroup(of: container)) {
                    try? Cgroup(place).thaw()
                }
            }
            let runtime = Runc(root: host.layout.runtimeRoot)
            for state in (try? runtime.list()) ?? [] {
                try? runtime.delete(state.name, force: true)
                try? Cgroup.killProcesses(in: host.layout.cgroup(of: state.name))
            }
            _ = try? Cgroup.removeEmpty(host.layout.cgroupParent)
            try? FileManager.default.removeItem(atPath: host.layout.runFolder)
        }
        try? FileManager.default.removeItem(atPath: folder)
    }
}

/// Asks every few milliseconds until it is so, for at most `seconds`.
func wait(seconds: Double = 15, until isSo: () async throws -> Bool) async throws {
    let deadline = monotonicNow() + Int64(seconds * 1e9)
    while try await !isSo(), monotonicNow() < deadline { try await Task.sleep(for: .milliseconds(3)) }
}

struct Wrong: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

private func isDead(_ pid: Int32) -> Bool {
    guard let state = (try? ProcessStatus(pid: pid))?["State"]?.first else { return true }
    return state == "Z" || state == "X"
}

/// The two hosts of a testbed and its network, for one test.
final class TestbedHosts {
    private let testbed: Testbed
    let hosts: FaultHosts
    var topology: Topology { testbed.topology }

    /// Makes the network; the agents are not started.
    ///
    /// - Parameters:
    ///   - name: two letters that no other suite has.
    ///   - backhaul: the rate of the link between the hosts.
    init(_ name: String, backhaul: LinkRate = LinkRate("1gbit")!) throws {
        testbed = Testbed(try Topology(instance: "\(name)\(getpid())", backhaul: backhaul))
        testbed.down()
        do {
            try testbed.upNetwork()
            hosts = try FaultHosts(testbed)
        } catch {
            testbed.down()
            throw error
        }
    }

    /// Both agents.
    func start() async throws {
        try await hosts.a.start()
        try await hosts.b.start()
    }

    func tearDown() {
        hosts.tearDown()
        testbed.down()
    }
}

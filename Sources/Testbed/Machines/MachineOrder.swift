// What a testbed has done at a machine: `apus machine VERB ORDER` there, ORDER and answer in JSON.
import Agent
import Containers
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration

/// One edge host of a testbed, as its machine is told about it.
public struct MachineOrder: Codable, Sendable {
    struct Peer: Codable, Sendable {
        var name: String
        var number: Int
        var address: PeerAddress
    }

    var instance: String
    /// The testbed's own: what others made at the machine is not its to remove.
    var token: String
    /// With the instance's prefix.
    var host: String
    /// Its position in the topology, from 1.
    var number: Int
    /// The testbed's folder.
    var folder: String
    var listen: PeerAddress
    var bridge: String
    /// The other hosts.
    var peers: [Peer]
    /// Options of the agent: what it lets containers have that come from others.
    var allowances: [String]

    public enum Verb: String, CaseIterable, Sendable { case examine, start, remove }

    /// Does it on this machine.
    ///
    /// - Returns: JSON.
    public static func carryOut(_ verb: Verb, _ json: String) async throws -> String {
        let order: MachineOrder
        do { order = try JSONDecoder().decode(MachineOrder.self, from: Data(json.utf8)) } catch {
            throw TestbedError("an order of another version of apus: use one version on all machines")
        }
        var failures: [String] = []
        switch verb {
        case .examine: break
        case .start: try await order.start()
        case .remove: failures = order.remove()
        }
        var report = order.examine()
        report.leftovers += failures
        return String(decoding: try jsonBytes(report), as: UTF8.self)
    }

    // MARK: - On the machine

    private var edge: EdgeHost { EdgeHost(name: host, number: 1) }
    private var client: AgentClient { AgentClient(host: host) }
    private var log: String { "\(folder)/\(host).log" }

    /// Names the testbed whose folder it is.
    private var owner: String { "\(folder)/owner" }
    private var isOurs: Bool { (try? SmallFile.text(owner)) == token }

    private func start() async throws {
        // This testbed's agent has been here before, and died: its containers and what they are attached to are still
        // there.
        if !isOurs {
            try makeFolders("/var/lib/apus")
            guard mkdir(folder, 0o755) == 0 else { throw KernelError("making \(folder) for the testbed", Errno(errno)) }
            _ = try FileDescriptor(opening: owner, O_WRONLY | O_CREAT, mode: 0o600)
            try SmallFile.write(token, to: owner)
        }
        try makeTunnels()
        var arguments = [
            // The run folder is the default one; naming it lets the process be found by it.
            "agent", "--host", host, "--state", "\(folder)/\(host)", "--run", edge.runFolder, "--bridge", bridge,
            "--listen", "\(listen)",
        ]
        for peer in peers {
            arguments += ["--peer", "\(peer.name)=\(peer.address),port=\(tunnels.port(to: peer.number))"]
        }
        arguments += allowances
        let output = try FileDescriptor(opening: log, O_WRONLY | O_CREAT | O_APPEND, mode: 0o644)
        let child = try ChildProcess(try Testbed.ownExecutable(), arguments, output: output)
        for _ in 0..<750 {
            guard child.isRunning else { break }
            if let pid = try? await client.host(within: .seconds(5)).pid, pid == child.pid { return }
            try await Task.sleep(for: .milliseconds(20))
        }
        throw TestbedError("the agent of \(host) does not answer:\n" + lastWords)
    }

    private var tunnels: Tunnels { Tunnels(instance: instance, number: number) }

    /// A second way to each other machine's bridge, as between the hosts of one machine: frames follow a container by
    /// it, nothing else passes.
    private func makeTunnels() throws {
        let words = try runProgram("ip", ["-o", "link", "show", "dev", bridge]).split(separator: " ")
        let mtu =
            words.firstIndex(of: "mtu").flatMap { words.indices.contains($0 + 1) ? Int(words[$0 + 1]) : nil } ?? 1500
        var lines: [String] = []
        let made = madeTunnels(try NetlinkSocket()).map(\.name)
        for peer in peers {
            let name = tunnels.port(to: peer.number)
            if made.contains(name) { continue }
            // Larger than what the line takes, it is sent in fragments: what passes here is what came during a
            // handover.
            lines += [
                "link add \(name) address \(tunnels.address(to: peer.number)) mtu \(mtu) type vxlan id \(tunnels.identifier(to: peer.number)) local \(listen.host)"
                    + " remote \(peer.address.host) dstport 4789 nolearning",
                "link set \(name) master \(bridge)",
                // Broadcasts of the bridge's own address go out by every port, whatever its flood flags say, and would
                // come back to the clients' switch by the other machine: not by ports that answer ARP for others
                // (br_flood).
                "link set \(name) type bridge_slave flood off mcast_flood off bcast_flood off learning off proxy_arp on",
                "link set \(name) addrgenmode none", "link set \(name) up",
            ]
        }
        try runProgram("ip", ["-batch", "-"], input: lines.joined(separator: "\n") + "\n")
    }

    private func madeTunnels(_ route: NetlinkSocket) -> [Link] {
        let names = Set(peers.map { tunnels.port(to: $0.number) })
        return ((try? route.links()) ?? []).filter { names.contains($0.name) }
    }

    private var lastWords: String {
        ((try? SmallFile.text(log)) ?? "").split(separator: "\n").suffix(15).joined(separator: "\n")
    }

    /// Ends the agent, then whatever it left, if this testbed started it. The machine's bridge stays, so entries for
    /// containers in it have to go one by one.
    ///
    /// - Returns: what could not be removed and does not show among the leftovers.
    private func remove() -> [String] {
        guard isOurs else { return [] }
        var failures: [String] = []
        ProcessTable.end(Leftovers.processes(naming: edge.runFolder, command: "agent"), grace: 5)
        // Guards put right what migrations left; those that wait for another host are not waited for.
        _ = waitUntil(seconds: 10) { Leftovers.processes(naming: edge.runFolder).isEmpty }
        ProcessTable.end(Leftovers.processes(naming: edge.runFolder), grace: 1)
        Leftovers.removeCgroups(edge.cgroupParent)
        if let layout = try? HostLayout(hostName: host, stateFolder: "\(folder)/\(host)") {
            for network in ContainerNetworkRecord.left(in: layout) {
                do { try ContainerNetwork.detach(network.spec, network.attachment) } catch {
                    failures.append("interface \(network.attachment.port) (\(error))")
                }
            }
        }
        do {
            let route = try NetlinkSocket()
            for link in madeTunnels(route) { try route.delete(link: link.index) }
        } catch { failures.append("tunnels (\(error))") }
        Leftovers.removeFolder(edge.runFolder)
        // What could not be removed stays ours.
        if failures.isEmpty && edge.leftovers().isEmpty { Leftovers.removeFolder(folder) }
        // Only if nobody else uses them.
        rmdir("/var/lib/apus")
        rmdir(TestbedState.folder)
        return failures
    }

    private func examine() -> MachineReport {
        let runtime = (try? Runc(root: edge.runtimeRoot).version()).map { "runc \($0)" }
        var report = MachineReport(
            identity: MachineReport.ownIdentity(), program: (try? Machine.digest(ofProgram: "/proc/self/exe")) ?? "",
            isOurs: isOurs, agentAnswers: AgentClient.isServed(client.socketPath),
            facts: KernelProbe(runtime: runtime).facts)
        if geteuid() != 0 { report.problems.append("ssh does not lead to root there") }
        report.problems += report.facts.missing.map { "it lacks \($0): `apus doctor` there says what to do" }
        let route = try? NetlinkSocket()
        let links = (try? route?.links()) ?? []
        if !links.contains(where: { $0.name == bridge && $0.kind == "bridge" }) {
            report.problems.append("it has no bridge \(bridge)")
        }
        let tunnels = route.map(madeTunnels) ?? []
        if report.agentAnswers {
            for peer in peers {
                do { _ = try peer.address.connect(timeLimit: .seconds(3)) } catch {
                    report.unreachable[peer.name] = "\(error)"
                }
                if !tunnels.contains(where: { $0.name == self.tunnels.port(to: peer.number) }) {
                    report.lacking.append(peer.name)
                }
            }
        }
        report.leftovers = edge.leftovers() + tunnels.map { "interface \($0.name)" }
        if fileExists(folder) { report.leftovers.append("folder \(folder)") }
        return report
    }
}

/// Names and identifiers of the tunnels of one host. Both ends must come to the same identifier, and two testbeds on
/// the same machines to different ones.
struct Tunnels {
    /// Of the instance's name.
    private let digest: UInt32
    private let number: Int

    init(instance: String, number: Int) {
        digest = FNV1a.hash32(instance.utf8)
        self.number = number
    }

    /// The bridge's port towards a host: "apus1a2b-3".
    func port(to other: Int) -> String {
        "apus" + String(digest & 0xffff | 0x10000, radix: 16).dropFirst() + "-\(other)"
    }

    /// High, so that the bridge does not take it for its own.
    func address(to other: Int) -> String {
        "fe:a9"
            + [digest >> 8 & 0xff, digest & 0xff, UInt32(number), UInt32(other)].map {
                ":" + String($0 | 0x100, radix: 16).dropFirst()
            }.joined()
    }

    /// The VXLAN's 24 bits: the testbed, and the two hosts (1...16).
    func identifier(to other: Int) -> UInt32 {
        let (low, high) = (UInt32(min(number, other) - 1), UInt32(max(number, other) - 1))
        return (digest & 0xffff) << 8 | low << 4 | high
    }
}

/// What a machine found when it looked at itself.
struct MachineReport: Codable, Sendable {
    /// The same for two names of one machine.
    var identity: String
    /// SHA-256 of the apus program there.
    var program: String
    /// Whether the testbed that asks made what is there.
    var isOurs: Bool
    var agentAnswers: Bool
    var facts: KernelFacts
    /// Why no agent can work there.
    var problems: [String] = []
    /// Other hosts whose agents it cannot connect to, and why. Looked at while its own runs.
    var unreachable: [String: String] = [:]
    /// Other hosts to which the bridge has lost its tunnel.
    var lacking: [String] = []
    /// What of the host exists there.
    var leftovers: [String] = []

    /// The kernel's boot, and the folder in which agents have their sockets.
    static func ownIdentity() -> String {
        var info = stat()
        stat("/run", &info)
        let boot = (try? SmallFile.text("/proc/sys/kernel/random/boot_id")) ?? ""
        return boot.filter { !$0.isWhitespace } + " \(info.st_dev) \(info.st_ino)"
    }
}

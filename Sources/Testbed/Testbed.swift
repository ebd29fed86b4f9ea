// A whole testbed: network, then agents; and its end.
import Glibc
import LinuxKernel

/// Edge hosts with their agents, access points and user devices, on one machine.
public struct Testbed: Sendable {
    public let topology: Topology
    public init(_ topology: Topology) { self.topology = topology }

    /// The testbed of this instance as it was made; one of the default topology if none stands, or if its record cannot be
    /// read (`down` then goes by names).
    public init(standing instance: String) throws {
        let plain = try Topology(instance: instance)
        self.init((try? TestbedState.load(instance: instance))?.topology ?? plain)
    }

    /// The folder of everything that this testbed's hosts keep on disk.
    public static func folder(instance: String) -> String { "/var/lib/apus/testbed-\(instance)" }
    public var folder: String { Self.folder(instance: topology.instance) }

    /// The process that moves the frames of emulated links.
    public var links: LinkService { LinkService(instance: topology.instance) }

    /// Makes the network and checks it. What a dead process left that owned a testbed of this name is removed first.
    ///
    /// - Parameters:
    ///   - owned: this process takes it down at its end.
    ///   - executable: the apus program, for the process of emulated links; nil: the running one.
    /// - Throws: when a testbed of this instance stands; or when something could not be made, after removing the rest.
    public func upNetwork(owned: Bool = false, executable: String? = nil) throws {
        let old = try TestbedState.load(instance: topology.instance)
        if let owner = old?.owner, !owner.isAlive {
            down()
        } else if let old {
            throw TestbedError(
                "testbed \(topology.instance) is \(old.stage == .up ? "up" : "half made or half removed"):"
                    + " `apus testbed down` removes it")
        }
        var state = TestbedState(topology: topology)
        state.owner = owned ? .here : nil
        try state.save()
        do {
            let network = EdgeNetwork(topology)
            try network.up(executable: executable)
            let failed = network.check().filter { !$0.passed }
            guard failed.isEmpty else {
                throw TestbedError(
                    "the testbed's network does not work: "
                        + failed.map { "\($0.name): \($0.detail)" }.joined(separator: "; "))
            }
            state.stage = .up
            try state.save()
        } catch {
            down()
            throw error
        }
    }

    /// The record of this testbed, which is up.
    func standing() throws -> TestbedState {
        guard let state = try TestbedState.load(instance: topology.instance), state.stage == .up else {
            throw TestbedError("testbed \(topology.instance) is not up")
        }
        return state
    }

    /// Removes everything that this instance's names stand for, whether it stands, is half made, or was left behind
    /// by a crash. Calling it again does nothing.
    public func down() {
        let record = try? TestbedState.load(instance: topology.instance)
        var state = record ?? TestbedState(topology: topology)
        // What stands, and what was asked for, if that is something else.
        var topologies = [state.topology]
        if topology != state.topology { topologies.append(topology) }
        if record == nil, let strays = Topology(straysOf: topology.instance) { topologies.append(strays) }
        state.stage = .removing
        if record != nil { try? state.save() }
        Self.stopAgents(state)
        for topology in topologies {
            for host in topology.hosts {
                ProcessTable.end(Leftovers.processes(naming: host.runFolder), grace: 1)
                Leftovers.removeCgroups(host.cgroupParent)
            }
            // Before the namespaces: an open TAP interface keeps its own alive.
            links.end()
            EdgeNetwork(topology).down()
            for host in topology.hosts { Leftovers.removeFolder(host.runFolder) }
        }
        Leftovers.removeFolder(folder)
        // Only if nobody else uses them.
        rmdir("/var/lib/apus")
        state.remove()
        rmdir(TestbedState.folder)
    }

    /// What of this instance exists, by name; empty after `down`.
    public func leftovers() -> [String] {
        var found = topology.namespaces.filter(\.exists).map { "network namespace \($0.name)" }
        for host in topology.hosts {
            found += Leftovers.cgroups(host.cgroupParent).map { "cgroup \($0)" }
            found += Leftovers.processes(naming: host.runFolder).map { "process \($0)" }
            found += Leftovers.mounts(below: host.runFolder).map { "mount \($0)" }
            if fileExists(host.runFolder) { found.append("folder \(host.runFolder)") }
        }
        found += links.processes.map { "process \($0)" }
        for folder in [folder, links.folder] where fileExists(folder) { found.append("folder \(folder)") }
        let path = TestbedState.path(topology.instance)
        if fileExists(path) { found.append("file \(path)") }
        return found
    }

    public struct Status: Sendable, Codable {
        public struct Agent: Sendable, Codable {
            public var host: String
            public var pid: Int32?
            public var running: Bool
            public var socket: String
            public var log: String
        }
        public var instance: String
        /// "up", "building", "removing", or "down".
        public var stage: String
        public var backhaul: LinkRate?
        public var topology: Topology?
        public var agents: [Agent]
        public var checks: [NetworkCheck]
        public var remains: [String]
    }

    public func status() throws -> Status {
        let state = try TestbedState.load(instance: topology.instance)
        let agents = (state?.agents ?? []).map { agent in
            Status.Agent(
                host: agent.host, pid: agent.pid,
                running: agent.pid.flatMap(ProcessTable.startTime).map { $0 == agent.startTime } ?? false,
                socket: agent.socket, log: agent.log)
        }
        let complete = topology.namespaces.allSatisfy(\.exists)
        return Status(
            instance: topology.instance, stage: state?.stage.rawValue ?? "down", backhaul: state?.topology.backhaul,
            topology: state?.topology, agents: agents, checks: complete ? EdgeNetwork(topology).check() : [],
            remains: leftovers())
    }
}

extension EdgeHost {
    // The places that follow from a host's name (HostLayout has the same rule).
    public var runFolder: String { "\(TestbedState.folder)/\(name)" }
    public var runtimeRoot: String { "\(runFolder)/runtime" }
    public var cgroupParent: String { "/apus-\(name)" }
}

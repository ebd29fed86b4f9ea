// A whole testbed: network, then agents; and its end.
import Glibc
import LinuxKernel

/// Edge hosts with their agents, access points and user devices, on one machine; or agents on real machines.
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

    /// Makes the network and checks it; of real machines it looks at each. What a dead process left that owned a testbed of this name is removed first.
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
        // Nothing of ours is there yet: what is found at a machine is somebody else's, and stays.
        if topology.hasMachines { try examineMachines() }
        var state = TestbedState(topology: topology)
        state.owner = owned ? .here : nil
        try state.save()
        do {
            if !topology.hasMachines { try makeNetwork(executable) }
            state.stage = .up
            try state.save()
        } catch {
            down()
            throw error
        }
    }

    private func makeNetwork(_ executable: String?) throws {
        let network = EdgeNetwork(topology)
        try network.up(executable: executable)
        let failed = network.check().filter { !$0.passed }
        guard failed.isEmpty else {
            throw TestbedError(
                "the testbed's network does not work: "
                    + failed.map { "\($0.name): \($0.detail)" }.joined(separator: "; "))
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
    /// by a crash. Calling it again does nothing. Where a machine cannot be reached the record stays, for the next call.
    ///
    /// - Parameter machines: false: what is at real machines is left there and forgotten.
    public func down(machines: Bool = true) {
        let record = try? TestbedState.load(instance: topology.instance)
        var state = record ?? TestbedState(topology: topology)
        // What stands, and what was asked for, if that is something else.
        var topologies = [state.topology]
        if topology != state.topology { topologies.append(topology) }
        if record == nil, let strays = Topology(straysOf: topology.instance) { topologies.append(strays) }
        state.stage = .removing
        if record != nil { try? state.save() }
        Self.stopAgents(state)
        var unreached = false
        if machines {
            for topology in topologies where topology.hasMachines {
                unreached = !Testbed(topology).machineLeftovers(.remove).isEmpty || unreached
            }
        }
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
        if !unreached { state.remove() }
        rmdir(TestbedState.folder)
    }

    /// What of this instance exists, by name; empty after `down`.
    ///
    /// - Parameter machines: whether real machines are asked.
    public func leftovers(machines: Bool = true) -> [String] {
        var found = topology.namespaces.filter(\.exists).map { "network namespace \($0.name)" }
        for host in topology.hosts { found += host.leftovers() }
        if machines { found += machineLeftovers(.examine) }
        found += links.processes.map { "process \($0)" }
        for folder in [folder, links.folder] where fileExists(folder) { found.append("folder \(folder)") }
        let path = TestbedState.path(topology.instance)
        if fileExists(path) { found.append("file \(path)") }
        return found
    }

    public struct Status: Sendable, Codable {
        public struct Agent: Sendable, Codable {
            public var host: String
            /// The agent's; of a real machine the connection's to it.
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
                host: agent.host, pid: agent.pid, running: agent.isRunning, socket: agent.socket, log: agent.log)
        }
        let checks: [NetworkCheck]
        if topology.hasMachines {
            checks = state?.stage == .up ? checkMachines() : []
        } else {
            checks = topology.namespaces.allSatisfy(\.exists) ? EdgeNetwork(topology).check() : []
        }
        return Status(
            instance: topology.instance, stage: state?.stage.rawValue ?? "down", backhaul: state?.topology.backhaul,
            topology: state?.topology, agents: agents, checks: checks,
            remains: leftovers(machines: state != nil && state?.stage != .up))
    }
}

extension EdgeHost {
    // The places that follow from a host's name (HostLayout has the same rule).
    public var runFolder: String { "\(TestbedState.folder)/\(name)" }
    public var runtimeRoot: String { "\(runFolder)/runtime" }
    public var cgroupParent: String { "/apus-\(name)" }

    /// What of the host exists on the machine that asks.
    func leftovers() -> [String] {
        Leftovers.cgroups(cgroupParent).map { "cgroup \($0)" }
            + Leftovers.processes(naming: runFolder).map { "process \($0)" }
            + Leftovers.mounts(below: runFolder).map { "mount \($0)" }
            + (fileExists(runFolder) ? ["folder \(runFolder)"] : [])
    }
}

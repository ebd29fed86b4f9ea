// A whole testbed: network, then agents; and its end.
import Agent
import Glibc
import LinuxKernel

/// Edge hosts with their agents, access points and user devices, on one machine; or agents on real machines.
public struct Testbed: Sendable {
    public let topology: Topology
    public init(_ topology: Topology) { self.topology = topology }

    /// The testbed of this instance as it was made; one of the default topology if none stands, or if its record cannot
    /// be read (`down` then goes by names).
    public init(standing instance: String) throws {
        let plain = try Topology(instance: instance)
        self.init((try? TestbedState.load(instance: instance))?.topology ?? plain)
    }

    /// The folder of everything that this testbed's hosts keep on disk.
    public static func folder(instance: String) -> String { "/var/lib/apus/testbed-\(instance)" }
    public var folder: String { Self.folder(instance: topology.instance) }

    /// The process that moves the frames of emulated links.
    public var links: LinkService { LinkService(instance: topology.instance) }

    /// Makes the network and checks it; of real machines it looks at each. What a dead process left that owned a
    /// testbed of this name is removed first.
    ///
    /// - Parameters:
    ///   - owned: this process takes it down at its end.
    ///   - executable: the apus program, for the process of emulated links; nil: the running one.
    /// - Throws: when a testbed of this instance stands; or when something could not be made, after removing the rest.
    public func upNetwork(owned: Bool = false, executable: String? = nil) throws {
        let old = try TestbedState.load(instance: topology.instance)
        if let owner = old?.owner, !owner.isAlive {
            Testbed(old!.topology).down()
            if try TestbedState.load(instance: topology.instance) != nil {
                throw TestbedError(
                    "machines of an earlier testbed \(topology.instance) cannot be reached: `apus testbed down` names them"
                )
            }
        } else if let old {
            throw TestbedError(
                "testbed \(topology.instance) is \(old.stage == .up ? "up" : "half made or half removed"):"
                    + " `apus testbed down` removes it")
        }
        // Nothing of ours is there yet: what is found, here or at a machine, is somebody else's, and stays.
        for host in topology.hosts where AgentClient.isServed(AgentClient(host: host.name).socketPath) {
            throw TestbedError(
                "an agent of a host \(host.name) runs on this machine: choose another --instance, or end it")
        }
        var state = TestbedState(topology: topology)
        if topology.hasMachines { try examineMachines(state) }
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

    /// Removes everything that this instance's names stand for, whether it stands, is half made, or was left behind by
    /// a crash. Calling it again does nothing. Where a machine cannot be reached the record stays, for the next call.
    ///
    /// - Parameter machines: false: what is at real machines is left there and forgotten.
    public func down(machines: Bool = true) {
        let record = try? TestbedState.load(instance: topology.instance)
        var state = record ?? TestbedState(topology: topology)
        // What stands, and what was asked for, if that is something else. Machines are only known by a record.
        var topologies = [state.topology]
        if topology != state.topology { topologies.append(topology) }
        if record == nil, let strays = Topology(straysOf: topology.instance) { topologies.append(strays) }
        state.stage = .removing
        if record != nil { try? state.save() }
        Self.stopAgents(state)
        var isDone = true
        if machines {
            isDone =
                record.map { machineLeftovers(.remove, $0).isEmpty }
                ?? !fileExists(TestbedState.lastingPath(topology.instance))
        }
        for topology in topologies {
            for host in topology.hosts where host.machine != nil { host.disconnect() }
            for host in topology.hosts where host.machine == nil {
                ProcessTable.end(Leftovers.processes(naming: host.runFolder), grace: 1)
                Leftovers.removeCgroups(host.cgroupParent)
            }
            // Before the namespaces: an open TAP interface keeps its own alive.
            links.end()
            EdgeNetwork(topology).down()
            for host in topology.hosts where host.machine == nil { Leftovers.removeFolder(host.runFolder) }
        }
        Leftovers.removeFolder(folder)
        // Only if nobody else uses them.
        if isDone { state.remove() }
        rmdir("/var/lib/apus")
        rmdir(TestbedState.folder)
    }

    /// What of this instance exists, by name; empty after `down`.
    ///
    /// - Parameter machines: whether real machines are asked.
    public func leftovers(machines: Bool = true) -> [String] {
        var found = topology.namespaces.filter(\.exists).map { "network namespace \($0.name)" }
        for host in topology.hosts { found += host.leftovers() }
        if machines, let record = try? TestbedState.load(instance: topology.instance) {
            found += machineLeftovers(.examine, record)
        }
        found += links.processes.map { "process \($0)" }
        for folder in [folder, links.folder] where fileExists(folder) { found.append("folder \(folder)") }
        return found + TestbedState.files(topology.instance).map { "file \($0)" }
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
            checks = state?.stage == .up ? checkMachines(state!) : []
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

    /// What of the host exists on the machine that asks; of another machine, the connection to it.
    func leftovers() -> [String] {
        if machine != nil {
            return Leftovers.connections(naming: runFolder).map { "process \($0)" }
                + (fileExists(runFolder + "/api.sock") ? ["socket \(runFolder)/api.sock"] : [])
        }
        return Leftovers.cgroups(cgroupParent).map { "cgroup \($0)" }
            + Leftovers.processes(naming: runFolder).map { "process \($0)" }
            + Leftovers.mounts(below: runFolder).map { "mount \($0)" }
            + (fileExists(runFolder) ? ["folder \(runFolder)"] : [])
    }

    /// Ends the connection to another machine's agent.
    func disconnect() {
        ProcessTable.end(Leftovers.connections(naming: runFolder), grace: 1)
        unlink(runFolder + "/api.sock")
        rmdir(runFolder)
    }
}

// A testbed of real machines: agents there, connections to them here; links are left alone.
import Agent
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration

extension Testbed {
    private func order(_ host: EdgeHost, _ machine: RemoteMachine, _ state: TestbedState) -> MachineOrder {
        let peers = topology.hosts.compactMap { other in
            other == host
                ? nil
                : other.machine.map { MachineOrder.Peer(name: other.name, number: other.number, address: $0.address) }
        }
        return MachineOrder(
            instance: topology.instance, token: state.token ?? "", host: host.name, number: host.number, folder: folder,
            listen: machine.address,
            bridge: machine.bridge, peers: peers, allowances: topology.allowances ?? [])
    }

    /// Has something done at a host's machine.
    private func have(_ host: EdgeHost, _ verb: MachineOrder.Verb, _ state: TestbedState) throws -> MachineReport {
        guard let machine = host.machine else { throw TestbedError("\(host.name) is no machine") }
        let json = String(decoding: try JSONEncoder().encode(order(host, machine, state)), as: UTF8.self)
        let answer = try machine.run([machine.program, "machine", verb.rawValue, json])
        do { return try JSONDecoder().decode(MachineReport.self, from: Data(answer.utf8)) } catch {
            throw TestbedError(
                "\(host.name): `\(machine.program)` on \(machine.ssh) is not this version of apus: use one on all machines"
            )
        }
    }

    /// Looks at every machine before anything is made there.
    ///
    /// - Throws: everything that keeps agents from working, by machine.
    func examineMachines(_ state: TestbedState) throws {
        var problems: [String] = []
        let program = try Machine.digest(ofProgram: "/proc/self/exe")
        var known = [MachineReport.ownIdentity(): "this machine, where the users are"]
        for host in topology.hosts {
            do {
                let report = try have(host, .examine, state)
                if report.program != program {
                    problems.append("\(host.name): its apus is another build than this one: copy one to all machines")
                }
                problems += report.problems.map { "\(host.name): \($0)" }
                if !report.leftovers.isEmpty {
                    problems.append("\(host.name): there is \(report.leftovers.joined(separator: ", ")) already")
                }
                if let other = known.updateValue(host.name, forKey: report.identity) {
                    problems.append("\(host.name) is the same machine as \(other)")
                }
            } catch { problems.append("\(host.name): \(error)") }
        }
        guard problems.isEmpty else {
            throw TestbedError("the machines cannot be used: " + problems.joined(separator: "; "))
        }
    }

    /// Starts an agent at each machine, and a connection to it; the connections' processes are written down.
    func spawnMachineAgents(_ state: inout TestbedState) throws -> [ChildProcess] {
        try topology.hosts.map { host in
            state.agents.append(
                .init(host: host.name, socket: AgentClient(host: host.name).socketPath, log: logPath(host)))
            try state.save()
            _ = try have(host, .start, state)
            return try connect(host, &state)
        }
    }

    /// Starts again the agents that have died at their machines.
    ///
    /// - Returns: names of their hosts.
    func reviveMachineAgents(_ state: TestbedState) throws -> [String] {
        try topology.hosts.filter { host in
            let report = try have(host, .examine, state)
            if !report.isOurs || report.agentAnswers { return false }
            _ = try have(host, .start, state)
            return true
        }.map(\.name)
    }

    /// Connects again to every machine whose connection has ended.
    ///
    /// - Returns: names of the hosts.
    public func reconnect() async throws -> [String] {
        var state = try standing()
        var hosts: [String] = []
        for host in topology.hosts where host.machine != nil {
            guard let agent = state.agents.first(where: { $0.host == host.name }), !agent.isRunning else { continue }
            try await waitForAgent(host, try connect(host, &state), until: monotonicNow() + 15_000_000_000)
            hosts.append(host.name)
        }
        return hosts
    }

    func connectionLog(_ host: EdgeHost) -> String { "\(folder)/\(host.name).connection.log" }

    private func connect(_ host: EdgeHost, _ state: inout TestbedState) throws -> ChildProcess {
        guard let machine = host.machine, let index = state.agents.firstIndex(where: { $0.host == host.name }) else {
            throw TestbedError("no agent was started at \(host.name)")
        }
        try makeFolders(host.runFolder)
        try makeFolders(folder)
        let path = state.agents[index].socket
        let log = try FileDescriptor(
            opening: connectionLog(host), O_WRONLY | O_CREAT | O_APPEND, mode: 0o644)
        let child = try machine.forward(path, to: path, log: log)
        state.agents[index].pid = child.pid
        state.agents[index].startTime = ProcessTable.startTime(child.pid)
        try state.save()
        let ready = waitUntil(seconds: 15, interval: 10) { AgentClient.isServed(path) || !child.isRunning }
        guard ready, child.isRunning else {
            child.stop(grace: 0)
            throw TestbedError("\(host.name): no connection to its agent by ssh (\(machine.ssh)): \(lastWords(host))")
        }
        return child
    }

    /// Whatever of a testbed is at its machines, by machine; those that cannot be asked are named too.
    func machineLeftovers(_ verb: MachineOrder.Verb, _ state: TestbedState) -> [String] {
        state.topology.hosts.filter { $0.machine != nil }.flatMap { host -> [String] in
            do {
                let report = try Testbed(state.topology).have(host, verb, state)
                return report.isOurs ? report.leftovers.map { "\(host.name): \($0)" } : []
            } catch {
                return ["\(host.name) cannot be asked: \(error)"]
            }
        }
    }

    /// Looks at every machine: does its agent work, and would it take the others' containers?
    func checkMachines(_ state: TestbedState) -> [NetworkCheck] {
        var checks: [NetworkCheck] = []
        var reports: [(host: EdgeHost, report: MachineReport)] = []
        for host in topology.hosts {
            do {
                let report = try have(host, .examine, state)
                let problems =
                    report.problems + (report.isOurs && report.agentAnswers ? [] : ["its agent has ended"])
                checks.append(
                    NetworkCheck(
                        name: "\(host.name) has an agent", passed: problems.isEmpty,
                        detail: problems.isEmpty ? report.facts.release : problems.joined(separator: "; ")))
                reports.append((host, report))
            } catch {
                checks.append(NetworkCheck(name: "\(host.name) has an agent", passed: false, detail: "\(error)"))
            }
        }
        for here in reports {
            for there in reports where there.host != here.host {
                var reasons = there.report.facts.reasonsAgainst(taking: here.report.facts)
                if let error = here.report.unreachable[there.host.name] { reasons.append(error) }
                if here.report.lacking.contains(there.host.name) { reasons.append("the tunnel there is gone") }
                checks.append(
                    NetworkCheck(
                        name: "from \(here.host.name) to \(there.host.name)", passed: reasons.isEmpty,
                        detail: reasons.isEmpty ? "containers can be moved" : reasons.joined(separator: "; ")))
            }
        }
        return checks
    }
}

extension EdgeHost {
    /// A report with its instants on this machine's clock, whatever the host's is.
    package func onOurClock(_ report: MigrationReport) async throws -> MigrationReport {
        guard machine != nil else { return report }
        let (offset, error) = try await AgentClient(host: name).clockOffset()
        var report = report
        report.frozenAt += offset
        report.releasedAt += offset
        report.clock += ", the client's ± \(error / 1000) µs"
        report.containerOffset = (report.containerOffset ?? 0) + offset
        return report
    }
}

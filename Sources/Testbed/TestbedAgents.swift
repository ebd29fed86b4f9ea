// One agent for each edge host, started from this very program.
import Agent
import Glibc
import LinuxKernel

extension Testbed {
    func logPath(_ host: EdgeHost) -> String { "\(folder)/\(host.name).log" }
    func stateFolder(_ host: EdgeHost) -> String { "\(folder)/\(host.name)" }

    /// What an agent of this host is called with.
    func agentArguments(_ host: EdgeHost) -> [String] {
        var arguments = [
            "agent", "--host", host.name, "--state", stateFolder(host), "--netns", host.namespace.path,
            "--bridge", host.bridge, "--listen", host.backhaulAddress,
        ]
        for other in topology.hosts where other != host {
            arguments += [
                "--peer", "\(other.name)=\(other.backhaulAddress),port=\(host.backhaulPort(to: other))",
            ]
        }
        return arguments + (topology.allowances ?? [])
    }

    /// Starts the agents; they are written down before they run. The network must be up.
    ///
    /// - Parameter executable: the apus program; nil: the running one. Real machines have their own.
    /// - Returns: the agents; of real machines the connections to them.
    public func spawnAgents(executable: String? = nil) throws -> [ChildProcess] {
        guard var state = try TestbedState.load(instance: topology.instance) else {
            throw TestbedError("testbed \(topology.instance) is not up")
        }
        if topology.hasMachines { return try spawnMachineAgents(&state) }
        let program = try executable ?? Self.ownExecutable()
        try makeFolders(folder)
        return try topology.hosts.map { try spawnAgent($0, program, &state) }
    }

    /// Starts an agent on this machine, in the place of one that has died if there was one.
    private func spawnAgent(_ host: EdgeHost, _ program: String, _ state: inout TestbedState) throws -> ChildProcess {
        state.agents.removeAll { $0.host == host.name }
        state.agents.append(
            .init(host: host.name, socket: AgentClient(host: host.name).socketPath, log: logPath(host)))
        try state.save()
        let log = try FileDescriptor(opening: logPath(host), O_WRONLY | O_CREAT | O_APPEND, mode: 0o644)
        let child = try ChildProcess(program, agentArguments(host), output: log)
        state.agents[state.agents.count - 1].pid = child.pid
        state.agents[state.agents.count - 1].startTime = ProcessTable.startTime(child.pid)
        try state.save()
        return child
    }

    /// Starts again the agents that have died of a testbed that stands as this one describes it; containers run on.
    ///
    /// - Parameter executable: the apus program; nil: the running one. Real machines have their own.
    /// - Returns: names of the hosts whose agents, or connections to them, are new; empty: nothing had died, or it does not
    ///   stand.
    public func revive(executable: String? = nil) async throws -> [String] {
        guard var state = try TestbedState.load(instance: topology.instance), state.stage == .up, state.owner == nil,
            state.topology == topology
        else { return [] }
        if topology.hasMachines {
            let agents = try reviveMachineAgents(state)
            return Set(agents).union(try await reconnect()).sorted()
        }
        var revived: [String] = []
        let dead = Set(state.agents.filter { !$0.isRunning }.map(\.host))
        for host in topology.hosts where dead.contains(host.name) {
            let child = try spawnAgent(host, try executable ?? Self.ownExecutable(), &state)
            try await waitForAgent(host, child, until: monotonicNow() + 15_000_000_000)
            revived.append(host.name)
        }
        return revived
    }

    /// Waits until every agent answers.
    public func waitForAgents(_ children: [ChildProcess], seconds: Double = 15) async throws {
        let deadline = monotonicNow() + Int64(seconds * 1e9)
        for (host, child) in zip(topology.hosts, children) { try await waitForAgent(host, child, until: deadline) }
    }

    /// - Parameter deadline: CLOCK_MONOTONIC, nanoseconds.
    func waitForAgent(_ host: EdgeHost, _ child: ChildProcess, until deadline: Int64) async throws {
        while true {
            do {
                _ = try await AgentClient(host: host.name).host(within: .seconds(5))
                return
            } catch {
                guard child.isRunning else {
                    throw TestbedError("the agent of \(host.name) ended at once:\n\(lastWords(host))")
                }
                guard monotonicNow() < deadline else {
                    throw TestbedError("the agent of \(host.name) does not answer: \(error)\n\(lastWords(host))")
                }
                try await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    /// Starts the agents and waits until they answer; takes everything down when one does not.
    public func startAgents() async throws {
        do {
            try await waitForAgents(spawnAgents())
        } catch {
            down()
            throw error
        }
    }

    /// The last lines of an agent's log; of a real machine, of the connection's.
    func lastWords(_ host: EdgeHost, lines: Int = 15) -> String {
        ((try? SmallFile.text(host.machine == nil ? logPath(host) : connectionLog(host))) ?? "").split(separator: "\n")
            .suffix(lines)
            .map { "  \(host.name): \($0)" }.joined(separator: "\n")
    }

    /// Ends the agents of a record, each by its PID and only if that PID is still the same process.
    static func stopAgents(_ state: TestbedState) {
        let pids = state.agents.compactMap { agent in
            agent.isRunning ? agent.pid : nil
        }
        ProcessTable.end(pids, grace: 5)
    }

    static func ownExecutable() throws -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = try checkC(readlink("/proc/self/exe", &buffer, buffer.count - 1), "reading /proc/self/exe")
        return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

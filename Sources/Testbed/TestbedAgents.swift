// One agent for each edge host.
import Glibc
import LinuxKernel

/// Starts and stops the agents of a testbed.
public enum TestbedAgents {
    /// Ends the agents of a record, each by its PID and only if that PID is still the same process.
    static func stop(_ state: TestbedState) {
        let pids = state.agents.compactMap { agent in
            agent.pid.flatMap { ProcessTable.startTime($0) == agent.startTime ? $0 : nil }
        }
        ProcessTable.end(pids, grace: 5)
    }
}

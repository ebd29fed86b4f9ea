// One migration by the engine, as an operator would ask for it: through the source's agent.
import Agent
import LinuxKernel
import Migration
import Testbed

struct EngineMigration {
    var technique: Technique
    var parameters: RunParameters

    /// Moves a container and waits for the end; gives the handover's trigger, if the policy wants one.
    func move(_ container: String, from source: EdgeHost, to destination: EdgeHost) async throws -> MigrationReport {
        let client = AgentClient(host: source.name)
        let id = try await client.migrate(container, to: destination.name, plan: parameters.migrationPlan(technique))
        let decided = monotonicNow()
        if parameters.handover == .atTrigger {
            let elapsed = Double(monotonicNow() - decided) / 1e9
            try await Task.sleep(for: .seconds(max(0, parameters.triggerAfter - elapsed)))
            _ = try await client.handOver(id)
        }
        // Twenty times what sending the memory once takes: who needs longer does not converge.
        let once = Double(parameters.memory) * Double(parameters.containers) / (parameters.bytesPerSecond ?? 1e8)
        let limit = 60 + 20 * once
        while true {
            let info = try await client.migration(id)
            if info.isOver {
                if let error = info.error { throw error }
                guard let report = info.report else {
                    throw TestbedError(
                        "migration \(id) ended in state \(info.progress.state.rawValue) without a report")
                }
                return report
            }
            if Double(monotonicNow() - decided) / 1e9 > limit {
                _ = try? await client.cancel(id)
                _ = try? await client.wait(for: id)
                throw TestbedError(
                    "not over after \(Int(limit)) s: \(info.progress.remark ?? info.progress.state.rawValue)")
            }
            try await Task.sleep(for: .milliseconds(100))
        }
    }
}

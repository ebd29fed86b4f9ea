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
        // What sending the memory once takes. Who needs twenty times as long does not converge; and nobody is ready
        // before: until then the agent is left alone, it shares its processors with what is measured.
        let once = Double(parameters.memory) * Double(parameters.containers) / (parameters.bytesPerSecond ?? 1e9)
        let limit = 60 + 20 * once
        if parameters.handover == .whenReady { try await Task.sleep(for: .seconds(0.9 * once)) }
        while true {
            let info = try await client.migration(id)
            if info.isOver {
                if let error = info.error { throw error }
                guard let report = info.report else {
                    throw TestbedError(
                        "migration \(id) ended in state \(info.progress.state.rawValue) without a report")
                }
                return try await source.onOurClock(report)
            }
            let elapsed = Double(monotonicNow() - decided) / 1e9
            if elapsed > limit {
                _ = try? await client.cancel(id)
                _ = try? await client.wait(for: id)
                throw TestbedError(
                    "not over after \(Int(limit)) s: \(info.progress.remark ?? info.progress.state.rawValue)")
            }
            try await Task.sleep(for: .seconds(min(0.1, max(0.02, elapsed / 20))))
        }
    }
}

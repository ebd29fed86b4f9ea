// Scenarios reach the edge hosts through their agents.
import Agent
import Migration

/// The agents of a testbed.
public struct AgentHosts: ContainerHosts {
    public init() {}

    public func run(_ container: ScenarioContainer, on host: EdgeHost) async throws {
        try host.machine?.bring(container.bundle)
        _ = try await AgentClient(host: host.name).run(
            RunRequest(
                name: container.name, bundle: container.bundle,
                network: .init(mac: container.mac, addresses: [container.address + "/24"])))
    }

    public func migrate(
        _ name: String, from source: EdgeHost, to destination: EdgeHost, plan: MigrationPlan,
        progress: @escaping @Sendable (MigrationProgress) -> Void
    ) async throws -> MigrationReport {
        let client = AgentClient(host: source.name)
        let id = try await client.migrate(name, to: destination.name, plan: plan)
        let end = try await client.wait(for: id) { progress($0.progress) }
        if let error = end.error { throw error }
        guard let report = end.report else {
            throw TestbedError("migration \(id) ended in state \(end.progress.state.rawValue) without a report")
        }
        return try await source.onOurClock(report)
    }

    public func isRunning(_ name: String, on host: EdgeHost) async throws -> Bool {
        try await AgentClient(host: host.name).container(name).isRunning
    }

    public func remove(_ name: String, from host: EdgeHost) async throws {
        try await AgentClient(host: host.name).remove(name, force: true)
    }
}

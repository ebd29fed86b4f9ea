// What a scenario asks of the agents, whatever way it reaches them.
import Migration

/// A container for a scenario: from which bundle, with which address on the access network.
public struct ScenarioContainer: Sendable {
    public var name: String
    public var bundle: String
    /// IPv4 address, without prefix length (the access network is a /24).
    public var address: String
    public var mac: String

    public init(name: String, bundle: String, address: String, mac: String) {
        self.name = name
        self.bundle = bundle
        self.address = address
        self.mac = mac
    }
}

/// The edge hosts as a scenario uses them.
public protocol ContainerHosts: Sendable {
    /// Makes and starts a container; returns when its first process runs.
    func run(_ container: ScenarioContainer, on host: EdgeHost) async throws
    /// Moves a container; returns when the migration has ended.
    func migrate(
        _ name: String, from source: EdgeHost, to destination: EdgeHost, plan: MigrationPlan,
        progress: @escaping @Sendable (MigrationProgress) -> Void
    ) async throws -> MigrationReport
    /// Whether the container runs there.
    func isRunning(_ name: String, on host: EdgeHost) async throws -> Bool
    /// Ends a container and removes it.
    func remove(_ name: String, from host: EdgeHost) async throws
}

// What the API's requests and answers say, as data. docs/api.md lists the calls.
import Containers
import Engine
import LinuxKernel
import Migration

/// GET /v1/host.
public struct HostInfo: Codable, Sendable {
    public var name: String
    public var pid: Int32
    public var migrationAddress: PeerAddress
    public var layout: HostLayout
    public var runtime: String
    public var runtimeVersion: String?
    public var bridge: String?
    /// Other hosts by name.
    public var peers: [String: PeerAddress]
    public var facts: KernelFacts
    /// CLOCK_MONOTONIC when the answer was made, nanoseconds.
    public var monotonicClock: Int64
    /// CPU time that the agent has used so far, seconds.
    public var cpuTime: Double
}

/// One of GET /v1/containers.
public struct ContainerInfo: Codable, Sendable {
    /// The runtime's word, or "lost": the runtime does not know it (any more).
    public var status: String
    /// The first process, 0 when there is none.
    public var pid: Int32
    public var record: ContainerRecord
    /// The file with its output.
    public var log: String
    /// The migration it takes part in.
    public var migration: String?

    public var isRunning: Bool { status == "running" }
}

/// POST /v1/containers.
public struct RunRequest: Codable, Sendable {
    public var name: String
    /// Absolute path of an OCI bundle on the agent's host. Its root file system is copied.
    public var bundle: String
    public var network: Network?

    /// A network of the container's own, attached to the host's bridge.
    public struct Network: Codable, Sendable {
        /// "02:00:00:00:00:01"; nil: a random one.
        public var mac: String?
        /// With prefix length: "10.0.0.2/24".
        public var addresses: [String]
        public var gateway: String?
        public init(mac: String? = nil, addresses: [String], gateway: String? = nil) {
            self.mac = mac
            self.addresses = addresses
            self.gateway = gateway
        }
    }
    public init(name: String, bundle: String, network: Network? = nil) {
        self.name = name
        self.bundle = bundle
        self.network = network
    }
}

/// POST /v1/containers/NAME/kill.
public struct KillRequest: Codable, Sendable {
    /// A signal's number, 1...64.
    public var signal: Int32
    public init(signal: Int32) { self.signal = signal }
}

/// POST /v1/containers/NAME/migrate.
public struct MigrateRequest: Codable, Sendable {
    /// A peer's name, or a numeric address with a port.
    public var to: String
    public var plan: MigrationPlan
    public init(to: String, plan: MigrationPlan) {
        self.to = to
        self.plan = plan
    }
}

/// The answer to it.
public struct MigrationStarted: Codable, Sendable {
    public var id: String
}

/// POST /v1/migrations/ID/resolve.
public struct ResolveRequest: Codable, Sendable {
    /// Whose copy lives.
    public var keep: MigrationControl.Resolution
    public init(keep: MigrationControl.Resolution) { self.keep = keep }
}

/// GET /v1/migrations/ID, and one of GET /v1/migrations.
public struct MigrationInfo: Codable, Sendable {
    public var id: String
    public var direction: MigrationDirection
    public var container: String
    /// The other host.
    public var peer: String
    public var plan: MigrationPlan
    /// ISO 8601, UTC.
    public var startedAt: String
    /// Whether nothing more will happen.
    public var isOver: Bool
    public var progress: MigrationProgress
    /// The source's, when it succeeded.
    public var report: MigrationReport?
    /// Why it ended otherwise.
    public var error: AgentError?
}

/// The body of every answer that is no success.
struct ErrorBody: Codable { var error: AgentError }
/// Answer of calls that have nothing to tell.
struct Done: Codable { var ok = true }

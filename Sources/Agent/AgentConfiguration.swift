// What an agent is told when it starts.
import Containers
import Migration

/// One host's agent.
public struct AgentConfiguration: Sendable {
    public var layout: HostLayout
    /// Where other agents reach it. Sessions are not authenticated yet.
    public var migrationAddress = PeerAddress("127.0.0.1")!
    /// The bridge that containers' networks are attached to; nil: containers with a network of their own are refused.
    public var bridge: String?
    /// The bridge's port that leads to the other hosts, but for those that `ports` names.
    public var backhaul: String?
    /// A file that stands for the network namespace to live in; nil: that of whoever starts the agent.
    public var networkNamespace: String?
    /// Other hosts by name.
    public var peers: [String: PeerAddress] = [:]
    /// The bridge's port that leads to one of the peers, by its name.
    public var ports: [String: String] = [:]
    /// What containers from other hosts may have here.
    public var allowances = Allowances()
    /// The runtime's program.
    public var runtimeProgram = "runc"

    public init(layout: HostLayout) { self.layout = layout }

    /// The bridge's port towards a host; nil if there is none.
    func backhaul(towards peer: Peer) -> String? {
        let known = peer.name.flatMap { peers[$0] == nil ? nil : $0 }
        let name = known ?? peers.first { $0.value == peer.address }?.key
        return name.flatMap { ports[$0] } ?? backhaul
    }

    /// The API's socket of the host of this name.
    public static func socketPath(host: String) -> String { "/run/apus/\(host)/api.sock" }
    public var socketPath: String { layout.runFolder + "/api.sock" }
    /// Held by the running agent.
    var lockPath: String { layout.runFolder + "/agent.lock" }
    /// Where containers' network namespaces are mounted.
    var networksFolder: String { layout.runFolder + "/netns" }
}

// What a testbed consists of, by name: everything else is derived, so that it can be found and removed after a crash.

/// An edge host: a network namespace with a bridge for its containers.
public struct EdgeHost: Sendable, Hashable, Codable {
    /// Its name, which is its namespace's too: "edge-a".
    public let name: String
    /// Its position, from 1: last byte of its addresses.
    public let number: Int

    public var namespace: NamedNetwork { NamedNetwork(name) }
    /// The bridge of its containers.
    public var bridge: String { "br0" }
    /// The bridge's port towards the other edge host (layer 2): carries unicast frames with a static FDB entry only.
    public var backhaulPort: String { "x20" }
    /// The routed link to the other edge host, for the agents' sessions.
    public var backhaulLink: String { "bkh0" }
    public var backhaulAddress: String { "10.77.0.\(number)" }
    /// The host's own address among the containers and clients.
    public var accessAddress: String { "10.78.0.\(number)" }
    var accessMAC: String { "02:a9:00:00:00:0\(number)" }
}

/// Two edge hosts, a user device and the access network between them, as network namespaces.
///
///     ue ── access ──┬── acc0 [edge-a: br0] x20 ──┐ unicast with static FDB entries
///                    └── acc0 [edge-b: br0] x20 ──┘
///                             edge-a bkh0 ═══════ bkh0 edge-b   (routed, shaped: the agents' sessions)
///
/// Pages and client traffic never share a queue.
public struct Topology: Sendable, Codable, Hashable {
    /// Distinguishes testbeds that stand at the same time: letters, digits and hyphens, at most 20.
    public let instance: String
    /// Rate of the routed backhaul, each way.
    public var backhaul: LinkRate

    public static let defaultInstance = "default"

    public init(instance: String = Self.defaultInstance, backhaul: LinkRate = LinkRate("1gbit")!) throws {
        guard (1...20).contains(instance.utf8.count),
            instance.utf8.allSatisfy({ (48...57).contains($0) || (97...122).contains($0 | 32) || $0 == 45 })
        else { throw TestbedError("testbed instance \"\(instance)\": letters, digits and hyphens, at most 20") }
        self.instance = instance
        self.backhaul = backhaul
    }

    /// Before every name; empty for the default instance, whose names are the plain ones.
    public var prefix: String { instance == Self.defaultInstance ? "" : "\(instance)-" }

    public var hosts: [EdgeHost] {
        ["edge-a", "edge-b"].enumerated().map { EdgeHost(name: prefix + $1, number: $0 + 1) }
    }
    /// A host by its name, with or without the prefix.
    public func host(_ name: String) -> EdgeHost? { hosts.first { $0.name == name || $0.name == prefix + name } }

    /// The user device.
    public var userDevice: NamedNetwork { NamedNetwork(prefix + "ue") }
    public var userDeviceAddress: String { "10.78.0.100" }
    /// The access network's switch.
    public var access: NamedNetwork { NamedNetwork(prefix + "access") }
    public var namespaces: [NamedNetwork] { hosts.map(\.namespace) + [userDevice, access] }
}

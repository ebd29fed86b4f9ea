// What a testbed consists of, by name: everything else is derived, so that it can be found and removed after a crash.

/// Edge hosts, access points, user devices and the links between them, as network namespaces; or edge hosts that are
/// real machines, whose links are theirs.
///
///     ue ── access ──┬── acc0 [edge-a: br0] x2 ──┐ unicast with static FDB entries
///                    └── acc0 [edge-b: br0] x1 ──┘
///                            edge-a bkh2 ═══ bkh1 edge-b   (routed: the agents' sessions)
///
/// Pages and client traffic never share a queue. docs/testbed.md has the picture with access points.
public struct Topology: Sendable, Codable, Hashable {
    /// Distinguishes testbeds that stand at the same time: letters, digits and hyphens, at most 20.
    public let instance: String
    /// What the topology is called: "default", or the name that its file gives.
    public let name: String
    public let hosts: [EdgeHost]
    public let accessPoints: [AccessPoint]
    /// At least one.
    public let userDevices: [UserDevice]
    /// Every link with what it does, per direction. None between real machines.
    public var links: [TestbedLink]
    /// The first three bytes of the addresses of containers, a /24: they get .10 to .97.
    public private(set) var containerNetwork = "10.78.0"

    /// What hosts let containers have that come from others: options of their agents.
    public var allowances: [String]?

    public static let defaultInstance = "default"

    /// Two edge hosts and one user device at the core switch.
    public init(instance: String = Self.defaultInstance, backhaul: LinkRate = LinkRate("1gbit")!) throws {
        var quality = LinkQuality()
        quality.rate = backhaul
        try self.init(
            instance: instance, name: Self.defaultInstance, hosts: ["edge-a", "edge-b"], accessPoints: [],
            users: [("ue", nil)]
        ) { if $0.kind == .backhaul { ($0.forward, $0.backward) = (quality, quality) } }
    }

    /// Names are given without the instance's prefix.
    ///
    /// - Parameter setting: gives a link its quality; before, it does nothing to what passes through it.
    init(
        instance: String, name: String, hosts: [String], machines: [RemoteMachine] = [],
        accessPoints: [(name: String, host: String?, x: Double, y: Double)],
        users: [(name: String, accessPoint: String?)], setting: (inout TestbedLink) -> Void
    ) throws {
        guard (1...20).contains(instance.utf8.count), instance.utf8.allSatisfy(Self.isPlain) else {
            throw TestbedError("testbed instance \"\(instance)\": letters, digits and hyphens, at most 20")
        }
        (self.instance, self.name) = (instance, name)
        let prefix = Self.prefix(instance)
        self.hosts = hosts.enumerated().map {
            EdgeHost(name: prefix + $1, number: $0 + 1, machine: machines.isEmpty ? nil : machines[$0])
        }
        self.accessPoints = accessPoints.enumerated().map {
            AccessPoint(name: prefix + $1.name, number: $0 + 1, host: $1.host.map { prefix + $0 }, x: $1.x, y: $1.y)
        }
        userDevices = users.enumerated().map {
            UserDevice(name: prefix + $1.name, number: $0 + 1, accessPoint: $1.accessPoint.map { prefix + $0 })
        }
        links = []
        if hasMachines { return }
        links = allLinks.map {
            var link = $0
            setting(&link)
            return link
        }
    }

    /// Edge hosts that are machines of their own; the user device is this machine, as it is.
    ///
    /// - Parameter containerNetwork: the first three bytes of the containers' addresses, "10.78.0".
    init(
        instance: String, name: String, machines: [(name: String, machine: RemoteMachine)], containerNetwork: String
    ) throws {
        try self.init(
            instance: instance, name: name, hosts: machines.map(\.name), machines: machines.map(\.machine),
            accessPoints: [], users: [("ue", nil)]
        ) { _ in }
        self.containerNetwork = containerNetwork
    }

    static func isPlain(_ byte: UInt8) -> Bool {
        (48...57).contains(byte) || (97...122).contains(byte | 32) || byte == 45
    }

    /// Before every name; empty for the default instance, whose names are the plain ones.
    public var prefix: String { Self.prefix(instance) }
    private static func prefix(_ instance: String) -> String { instance == defaultInstance ? "" : "\(instance)-" }

    /// A host by its name, with or without the prefix.
    public func host(_ name: String) -> EdgeHost? { hosts.first { isName($0.name, name) } }
    /// An access point by its name, with or without the prefix.
    public func accessPoint(_ name: String) -> AccessPoint? { accessPoints.first { isName($0.name, name) } }
    /// A user device by its name, with or without the prefix.
    public func userDevice(_ name: String) -> UserDevice? { userDevices.first { isName($0.name, name) } }
    func isName(_ full: String, _ given: String) -> Bool { full == given || full == prefix + given }

    /// The full name of a station.
    public func name(of station: String) -> String? { namespaces.map(\.name).first { isName($0, station) } }

    /// Whether its hosts are real machines.
    public var hasMachines: Bool { hosts.contains { $0.machine != nil } }

    /// The first user device.
    public var userDevice: NamedNetwork { userDevices[0].namespace }
    public var userDeviceAddress: String { userDevices[0].address }
    /// The core switch, by which hosts and access points reach each other.
    public var access: NamedNetwork { NamedNetwork(prefix + Self.accessName) }
    static let accessName = "access"
    public var namespaces: [NamedNetwork] {
        hasMachines
            ? [] : hosts.map(\.namespace) + accessPoints.map(\.namespace) + userDevices.map(\.namespace) + [access]
    }
}

// The links of a topology by their two ends, and the pairs of interfaces that each is made of.

/// A link between two stations.
public struct TestbedLink: Sendable, Hashable, Codable {
    public enum Kind: String, Sendable, Codable, CaseIterable {
        /// Between two edge hosts.
        case backhaul
        /// Between an edge host and the core switch; up is towards the switch.
        case access
        /// Between a user device and an access point (or the core switch); up is away from the user.
        case radio
    }
    public let kind: Kind
    /// Names of its ends: two hosts by their numbers; a host and the core switch; a user device and an access point.
    public let a, b: String
    /// What it does from `a` to `b` (up).
    public var forward = LinkQuality()
    /// What it does from `b` to `a` (down).
    public var backward = LinkQuality()
    /// Made by the link process, which can do all that a quality says. Other links are veth pairs and know rates only.
    public package(set) var isEmulated = false

    init(_ kind: Kind, _ a: String, _ b: String) { (self.kind, self.a, self.b) = (kind, a, b) }

    public subscript(direction: LinkDirection) -> LinkQuality {
        get { direction == .forward ? forward : backward }
        set { if direction == .forward { forward = newValue } else { backward = newValue } }
    }
    var name: String { "\(a):\(b)" }
    var isRateOnly: Bool { forward.isRateOnly && backward.isRateOnly }
}

extension Topology {
    /// All links there have to be, which do nothing to what passes yet.
    var allLinks: [TestbedLink] {
        var links = hosts.indices.flatMap { i in
            hosts[(i + 1)...].map { TestbedLink(.backhaul, hosts[i].name, $0.name) }
        }
        links += hosts.map { TestbedLink(.access, $0.name, access.name) }
        for user in userDevices {
            if user.accessPoint == nil { links.append(TestbedLink(.radio, user.name, access.name)) }
            links += accessPoints.map { TestbedLink(.radio, user.name, $0.name) }
        }
        return links
    }

    /// The link between two stations, in either order; names with or without the prefix.
    public func link(_ one: String, _ other: String) -> TestbedLink? {
        links.first {
            isName($0.a, one) && isName($0.b, other) || isName($0.a, other) && isName($0.b, one)
        }
    }

    /// The pairs of interfaces that make up a link. Those of a backhaul are two, which do not share a queue: the routed
    /// one for sessions, and the bridges' ports by which frames follow a container; few ever pass there, so its rate is
    /// not limited.
    func cables(of link: TestbedLink) -> [EmulatedLink] {
        func cable(_ a: LinkEnd, _ b: LinkEnd) -> EmulatedLink {
            EmulatedLink(
                name: link.name, a: a, b: b, means: link.isEmulated ? .tap : .shaper, forward: link.forward,
                backward: link.backward)
        }
        switch link.kind {
        case .backhaul:
            guard let a = host(link.a), let b = host(link.b) else { return [] }
            var frames = cable(
                LinkEnd(network: a.name, interface: a.backhaulPort(to: b)),
                LinkEnd(network: b.name, interface: b.backhaulPort(to: a)))
            frames.name += ":frames"
            for direction in LinkDirection.allCases {
                (frames[direction].rate, frames[direction].queue) = (.unlimited, nil)
            }
            return [
                cable(
                    LinkEnd(network: a.name, interface: a.backhaulLink(to: b)),
                    LinkEnd(network: b.name, interface: b.backhaulLink(to: a))),
                frames,
            ]
        case .access:
            guard let host = host(link.a) else { return [] }
            return [
                cable(
                    LinkEnd(network: host.name, interface: "acc0"),
                    LinkEnd(network: access.name, interface: host.corePort))
            ]
        case .radio:
            guard let user = userDevice(link.a) else { return [] }
            guard let accessPoint = accessPoint(link.b) else {
                return [
                    cable(
                        LinkEnd(network: user.name, interface: "eth0", mac: user.mac),
                        LinkEnd(network: access.name, interface: user.farPort))
                ]
            }
            return [
                cable(
                    LinkEnd(network: user.name, interface: user.radio(to: accessPoint)),
                    LinkEnd(network: accessPoint.name, interface: user.farPort))
            ]
        }
    }

    /// The backhaul's rate, each way; of several the first one's.
    public var backhaul: LinkRate { links.first { $0.kind == .backhaul }?.forward.rate ?? .unlimited }
}

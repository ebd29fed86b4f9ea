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
    public var forth = LinkQuality()
    /// What it does from `b` to `a` (down).
    public var back = LinkQuality()

    init(_ kind: Kind, _ a: String, _ b: String) { (self.kind, self.a, self.b) = (kind, a, b) }
}

/// One end of a cable.
struct CableEnd: Hashable, Sendable {
    let namespace: NamedNetwork
    let interface: String
    /// nil: whatever the kernel gives.
    var mac: String?
    init(_ namespace: NamedNetwork, _ interface: String, mac: String? = nil) {
        (self.namespace, self.interface, self.mac) = (namespace, interface, mac)
    }
}

/// A pair of joined interfaces.
struct Cable: Hashable, Sendable {
    let a, b: CableEnd
    /// From a to b, and from b to a.
    var forth, back: LinkQuality
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

    /// The pairs of interfaces that make up a link. Those of a backhaul are two, which do not share a queue: the routed one
    /// for sessions, and the bridges' ports by which frames follow a container; few ever pass there, so its rate is not
    /// limited.
    func cables(of link: TestbedLink) -> [Cable] {
        func cable(_ a: CableEnd, _ b: CableEnd) -> Cable { Cable(a: a, b: b, forth: link.forth, back: link.back) }
        switch link.kind {
        case .backhaul:
            guard let a = host(link.a), let b = host(link.b) else { return [] }
            var frames = cable(
                CableEnd(a.namespace, a.backhaulPort(to: b)), CableEnd(b.namespace, b.backhaulPort(to: a)))
            (frames.forth.rate, frames.back.rate) = (.unlimited, .unlimited)
            return [
                cable(CableEnd(a.namespace, a.backhaulLink(to: b)), CableEnd(b.namespace, b.backhaulLink(to: a))),
                frames,
            ]
        case .access:
            guard let host = host(link.a) else { return [] }
            return [cable(CableEnd(host.namespace, "acc0"), CableEnd(access, host.corePort))]
        case .radio:
            guard let user = userDevice(link.a) else { return [] }
            guard let accessPoint = accessPoint(link.b) else {
                return [cable(CableEnd(user.namespace, "eth0", mac: user.mac), CableEnd(access, user.farPort))]
            }
            return [
                cable(
                    CableEnd(user.namespace, user.radio(to: accessPoint)),
                    CableEnd(accessPoint.namespace, user.farPort))
            ]
        }
    }

    /// The backhaul's rate, each way; of several the first one's.
    public var backhaul: LinkRate { links.first { $0.kind == .backhaul }?.forth.rate ?? .unlimited }
}

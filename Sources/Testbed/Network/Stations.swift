// The stations of a topology: hosts, access points, user devices; and the names and addresses that follow from each.

/// An edge host: a network namespace with a bridge for its containers.
public struct EdgeHost: Sendable, Hashable, Codable {
    /// Its name, which is its namespace's too: "edge-a".
    public let name: String
    /// Its position, from 1: its addresses follow from it.
    public let number: Int
    /// The machine that it is; nil: a network namespace of this one.
    public let machine: RemoteMachine?

    init(name: String, number: Int, machine: RemoteMachine? = nil) {
        (self.name, self.number, self.machine) = (name, number, machine)
    }

    public var namespace: NamedNetwork { NamedNetwork(name) }
    /// The bridge of its containers.
    public var bridge: String { "br0" }
    /// The bridge's port towards another edge host (layer 2): carries unicast frames with a static FDB entry only.
    public func backhaulPort(to peer: EdgeHost) -> String { "x\(peer.number)" }
    /// The routed link to another edge host, for the agents' sessions.
    public func backhaulLink(to peer: EdgeHost) -> String { "bkh\(peer.number)" }
    public var backhaulAddress: String { "10.77.0.\(number)" }
    /// The host's own address among the containers and clients. Containers have those from 10 on.
    public var accessAddress: String { "10.78.0.\(number < 10 ? number : 230 + number)" }
    var accessMAC: String { "02:a9:00:00:00:\(hex(number))" }
    var bridgeMAC: String { "02:a9:00:00:01:\(hex(0x10 + number))" }
    /// Its port at the core switch.
    var corePort: String { "p\(number)" }
}

/// An access point: a network namespace with a bridge, between user devices and a host (or the core switch).
public struct AccessPoint: Sendable, Hashable, Codable {
    /// Its name, which is its namespace's too: "ap-1".
    public let name: String
    /// Its position, from 1.
    public let number: Int
    /// The name of the edge host beside it, in whose bridge its uplink ends; nil: that is the core switch.
    public let host: String?
    /// Where it stands, metres.
    public let x, y: Double

    public var namespace: NamedNetwork { NamedNetwork(name) }
    /// Its uplink's far end, at the host or the core switch.
    var uplinkPort: String { "a\(number)" }
    var bridgeMAC: String { "02:a9:00:00:03:\(hex(number))" }
}

/// A user device: a network namespace with one address, wherever it is attached.
public struct UserDevice: Sendable, Hashable, Codable {
    /// Its name, which is its namespace's too: "ue".
    public let name: String
    /// Its position, from 1.
    public let number: Int
    /// The name of the access point that it is attached to in the beginning; nil: there are none, and it hangs at the
    /// core switch.
    public let accessPoint: String?

    public var namespace: NamedNetwork { NamedNetwork(name) }
    public var address: String { "10.78.0.\(99 + number)" }
    /// The interface that has the address.
    public var interface: String { accessPoint == nil ? "eth0" : "br0" }
    var mac: String { "02:a9:00:00:02:\(hex(number))" }
    /// Its port at an access point, or at the core switch.
    var farPort: String { "u\(number)" }
    /// Its own end of the radio link to an access point.
    func radio(to accessPoint: AccessPoint) -> String { "r\(accessPoint.number)" }
}

private func hex(_ number: Int) -> String { (number < 16 ? "0" : "") + String(number, radix: 16) }

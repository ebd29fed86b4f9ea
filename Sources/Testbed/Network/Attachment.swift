// Which access point a user device is attached to: the state of the ports of its bridge, one for each access point.
import Glibc
import LinuxKernel

/// The radio of one user device: of its ports one forwards, the others are silent. The state is the kernel's.
struct Attachment {
    private let topology: Topology
    private let user: UserDevice
    private let route: NetlinkSocket
    /// Indexes of the ports by the access points' numbers.
    private let ports: [Int: Int32]
    private let announcer: PacketSocket

    /// Opens sockets and looks up indexes, so that each change is one message.
    init(_ user: UserDevice, _ topology: Topology) throws {
        (self.user, self.topology) = (user, topology)
        let namespace = try NetworkNamespace(opening: user.namespace.path)
        route = try NetlinkSocket(in: namespace)
        let links = try route.links()
        var ports: [Int: Int32] = [:]
        for point in topology.accessPoints {
            guard let link = links.first(where: { $0.name == user.radio(to: point) }) else {
                throw TestbedError("\(user.name) has no radio link to \(point.name)")
            }
            ports[point.number] = link.index
        }
        guard let bridge = links.first(where: { $0.name == user.interface }) else {
            throw TestbedError("\(user.name) has no interface \(user.interface)")
        }
        self.ports = ports
        announcer = try PacketSocket(on: bridge.index, in: namespace)
    }

    /// Silences all ports but one. The kernel changes a port's state by itself when it sees a carrier for the first
    /// time, so this waits until all have one; no frame may be able to come back by another port meanwhile.
    func begin(at accessPoint: AccessPoint?) throws {
        let all = Set(ports.values)
        let came = try waitUntil(seconds: 10) {
            // A TAP interface has its carrier from its making on, and its state is never looked at again.
            let ready = try route.links().filter { $0.isOperational || $0.kind == "tun" }
            return all.isSubset(of: ready.map(\.index))
        }
        guard came else { throw TestbedError("the radio links of \(user.name) see no carrier") }
        for port in all where port != accessPoint.flatMap({ ports[$0.number] }) { try set(port, .disabled) }
    }

    /// The access point whose port forwards; nil: none.
    func current() throws -> AccessPoint? {
        try topology.accessPoints.first {
            try route.portState(of: ports[$0.number]!) == BridgePort.State.forwarding.rawValue
        }
    }

    /// Nothing leaves and nothing comes by the link to this access point any more.
    func leave(_ accessPoint: AccessPoint) throws { try set(ports[accessPoint.number]!, .disabled) }

    /// Everything leaves and comes by the link to this access point, and all switches learn it.
    func join(_ accessPoint: AccessPoint) throws {
        try set(ports[accessPoint.number]!, .forwarding)
        try announcer.send(Frame.announcement(IPAddress(user.address)!, at: MACAddress(user.mac)!))
    }

    private func set(_ port: Int32, _ state: BridgePort.State) throws {
        try route.request(BridgePort.set(port, state), "setting a radio link of \(user.name)")
    }
}

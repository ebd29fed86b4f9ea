// The source's side of a network handover: send the container's frames after it, silence its port, take both back.
import Glibc
import LinuxKernel

/// What the source changes in a handover, as data: enough for another process to undo it.
public struct SourceHandoverRecord: Codable, Sendable, Hashable {
    public let spec: NetworkSpec
    public let attachment: NetworkAttachment
    public init(_ spec: NetworkSpec, _ attachment: NetworkAttachment) {
        self.spec = spec
        self.attachment = attachment
    }

    /// Undoes `hold`, `redirect` and `silence`, whichever of them happened, any number of times, and tells the network
    /// that the container is here. Needs nothing that leads to the other host: its loss may be the reason.
    public func rollback() throws(KernelError) {
        let route = try NetlinkSocket()
        try ConnectionHold.remove(attachment, route)
        try route.request(SourceHandover.restoration(spec.mac, try HandoverPorts.port(attachment, route)))
        try Announcer(spec, attachment).announce()
    }
}

/// The handover at the source, prepared before the freeze so that each step in it is one netlink message.
///
/// Works in the network namespace of the thread that makes it; the steps may be called from any thread.
public final class SourceHandover: Sendable {
    public let record: SourceHandoverRecord
    private let route: NetlinkSocket
    private let holding, redirection, silencing, restoration: NetlinkBatch
    private let announcer: Announcer

    /// Opens sockets, looks up indexes, encodes messages; changes nothing.
    /// - Throws: `.noEntry` if bridge, port, backhaul or namespace are not there; `.invalid` if they do not belong
    ///   together, `.notSupported` on a bridge with spanning tree (its port states are its own), ENETDOWN if the backhaul's
    ///   port does not forward.
    public init(_ record: SourceHandoverRecord) throws(KernelError) {
        self.record = record
        let attachment = record.attachment
        route = try NetlinkSocket()
        let ports = try HandoverPorts(attachment, route)
        let mac = record.spec.mac
        holding = NetlinkBatch(
            "keeping the container's address at its port", [BridgePort.forward(mac, to: ports.port, .sticky)])
        redirection = NetlinkBatch(
            "pointing the container's address at the backhaul", [BridgePort.forward(mac, to: ports.backhaul, .sticky)])
        silencing = NetlinkBatch("muting the container's port", [BridgePort.set(ports.port, .disabled)])
        restoration = Self.restoration(mac, ports.port)
        announcer = try Announcer(record.spec, attachment)
    }
    public convenience init(_ spec: NetworkSpec, _ attachment: NetworkAttachment) throws(KernelError) {
        try self.init(SourceHandoverRecord(spec, attachment))
    }

    fileprivate static func restoration(_ mac: MACAddress, _ port: Int32) -> NetlinkBatch {
        // The state first: an entry like a learned one is refused at a port that does not forward.
        NetlinkBatch(
            "opening the container's port again",
            [BridgePort.set(port, .forwarding), BridgePort.forward(mac, to: port, .learned)])
    }

    /// Keeps the container's address at its port, and tells the network of it. A container that says nothing for
    /// minutes is forgotten by bridges; with the destination's entry in place, what is flooded then would go in a
    /// circle between the hosts. Before the destination prepares, and before the freeze. What is left of it is right as
    /// long as the container is here.
    public func hold() throws(KernelError) {
        try route.request(holding)
        try announcer.announce()
    }

    /// Frames for the container leave by the backhaul from here on (after the destination's `accept`); what it still
    /// has to say gets out.
    public func redirect() throws(KernelError) { try route.request(redirection) }

    /// Nothing leaves the container's port any more and nothing enters.
    public func silence() throws(KernelError) { try route.request(silencing) }

    /// Undoes all of them, in any state, and tells the network that the container is here.
    public func rollback() throws(KernelError) {
        try route.request(restoration)
        try announcer.announce()
    }

    /// After the move, and after the source's processes are gone: removes the container's network from this host.
    public func retire() throws(KernelError) { try ContainerNetwork.detach(record.spec, record.attachment) }
}

/// The indexes a handover needs, checked to belong together.
struct HandoverPorts {
    let port, backhaul: Int32

    /// The container's port alone.
    static func port(_ attachment: NetworkAttachment, _ route: NetlinkSocket) throws(KernelError) -> Int32 {
        try find([attachment.port], of: attachment.bridge, route)[0]
    }

    private static func find(_ ports: [String], of bridge: String, _ route: NetlinkSocket) throws(KernelError)
        -> [Int32]
    {
        let links = try route.links()
        func find(_ name: String) throws(KernelError) -> Link {
            guard let link = links.first(where: { $0.name == name }) else {
                throw KernelError("finding interface \(name)", .noEntry)
            }
            return link
        }
        let bridge = try find(bridge)
        if bridge.hasSpanningTree {
            throw KernelError("bridge \(bridge.name) runs spanning tree", Errno(EOPNOTSUPP))
        }
        return try ports.map { name throws(KernelError) in
            let link = try find(name)
            if link.master != bridge.index { throw KernelError("\(name) is not a port of \(bridge.name)", .invalid) }
            return link.index
        }
    }

    init(_ attachment: NetworkAttachment, _ route: NetlinkSocket) throws(KernelError) {
        let found = try Self.find([attachment.port, attachment.backhaul], of: attachment.bridge, route)
        (port, backhaul) = (found[0], found[1])
        // What follows the container by it would be dropped without a word. A new link's carrier is seen up to a second
        // late.
        guard try route.portState(of: backhaul) == BridgePort.State.forwarding.rawValue else {
            throw KernelError(
                "\(attachment.backhaul), a port of \(attachment.bridge), does not forward: is its link up?",
                Errno(ENETDOWN))
        }
    }
}

/// Says to the network where the container's addresses are, from inside its namespace.
struct Announcer: Sendable {
    private let socket: PacketSocket
    private let frames: [[UInt8]]

    init(_ spec: NetworkSpec, _ attachment: NetworkAttachment) throws(KernelError) {
        let namespace = try NetworkNamespace(opening: attachment.namespace)
        let interface = try NetlinkSocket(in: namespace).link(spec.interface).index
        socket = try PacketSocket(on: interface, in: namespace)
        frames = try spec.prefixes().map { Frame.announcement($0.address, at: spec.mac) }
    }
    func announce() throws(KernelError) { for frame in frames { try socket.send(frame) } }
}

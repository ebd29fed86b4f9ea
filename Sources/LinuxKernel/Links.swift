// Network interfaces over rtnetlink: finding, making, moving and removing them.
import CLinux
import Glibc

/// An interface as the kernel describes it.
public struct Link: Sendable {
    public let index: Int32
    public let name: String
    public let mac: MACAddress?
    /// Index of the bridge it is a port of; 0: none.
    public let master: Int32
    public let mtu: Int
    /// Set up by the administrator.
    public let isUp: Bool
    /// Carrier seen and queues running: frames pass (operational state UP).
    public let isOperational: Bool
    /// "veth", "bridge" ...; nil for real hardware.
    public let kind: String?
    /// A bridge whose port states are steered by a spanning tree.
    public let hasSpanningTree: Bool

    init(_ reply: NetlinkReply) {
        let attributes = reply.attributes(after: CLX_IFINFO_SIZE)
        index = reply.fixed(4)
        isUp = reply.fixed(8, as: UInt32.self) & UInt32(CLX_IFF_UP) != 0
        name = attributes.text(CLX_IFLA_IFNAME) ?? ""
        mac = attributes[CLX_IFLA_ADDRESS].flatMap { MACAddress($0) }
        master = attributes.integer(CLX_IFLA_MASTER) ?? 0
        mtu = Int(attributes.integer(CLX_IFLA_MTU, as: UInt32.self) ?? 0)
        isOperational = attributes.integer(CLX_IFLA_OPERSTATE, as: UInt8.self) == UInt8(CLX_IF_OPER_UP)
        let info = attributes.nest(CLX_IFLA_LINKINFO)
        kind = info?.text(CLX_IFLA_INFO_KIND)
        let spanningTree: UInt32? =
            kind == "bridge" ? info?.nest(CLX_IFLA_INFO_DATA)?.integer(CLX_IFLA_BR_STP_STATE) : nil
        hasSpanningTree = spanningTree ?? 0 != 0
    }
}

/// The far end of a veth pair: where it goes and what it is called there.
public struct VethPeer: Sendable {
    public let name: String
    public let mac: MACAddress?
    public let namespace: NetworkNamespace
    public init(name: String, mac: MACAddress?, namespace: NetworkNamespace) {
        self.name = name
        self.mac = mac
        self.namespace = namespace
    }
}

extension NetlinkSocket {
    /// All interfaces of the namespace.
    public func links() throws(KernelError) -> [Link] {
        try dump(NetlinkMessage(CLX_RTM_GETLINK, fixed: CLX_IFINFO_SIZE), "listing interfaces")
            .filter { $0.type == CLX_RTM_NEWLINK }.map { Link($0) }
    }
    /// The interface of a name, or nil.
    public func linkIfPresent(_ name: String) throws(KernelError) -> Link? { try links().first { $0.name == name } }
    /// The interface of a name. - Throws: `.noEntry` if there is none.
    public func link(_ name: String) throws(KernelError) -> Link {
        guard let link = try linkIfPresent(name) else { throw KernelError("finding interface \(name)", .noEntry) }
        return link
    }

    /// Makes a veth pair: `name` here, the peer in its namespace; both stay down. A nil MTU is the kernel's own, a nil
    /// MAC a random one.
    public func createVeth(_ name: String, mac: MACAddress? = nil, mtu: Int? = nil, peer: VethPeer) throws(KernelError)
    {
        var message = NetlinkMessage(
            CLX_RTM_NEWLINK, flags: CLX_NLM_F_CREATE | CLX_NLM_F_EXCL, fixed: CLX_IFINFO_SIZE)
        message.add(CLX_IFLA_IFNAME, name)
        if let mac { message.add(CLX_IFLA_ADDRESS, mac.bytes) }
        if let mtu { message.add(CLX_IFLA_MTU, UInt32(mtu)) }
        message.nest(CLX_IFLA_LINKINFO) { info in
            info.add(CLX_IFLA_INFO_KIND, "veth")
            info.nest(CLX_IFLA_INFO_DATA) { data in
                data.nest(CLX_VETH_INFO_PEER) { far in
                    far.append(raw: [UInt8](repeating: 0, count: Int(CLX_IFINFO_SIZE)))
                    far.add(CLX_IFLA_IFNAME, peer.name)
                    if let mac = peer.mac { far.add(CLX_IFLA_ADDRESS, mac.bytes) }
                    if let mtu { far.add(CLX_IFLA_MTU, UInt32(mtu)) }
                    far.add(CLX_IFLA_NET_NS_FD, peer.namespace.descriptor.number)
                }
            }
        }
        try request(message, "creating veth pair \(name)")
    }

    /// Makes a bridge without multicast snooping, and without spanning tree unless told otherwise; `ageing` is the life
    /// of a learned entry in seconds.
    public func createBridge(_ name: String, ageing: Int = 300, spanningTree: Bool = false) throws(KernelError) {
        var message = NetlinkMessage(
            CLX_RTM_NEWLINK, flags: CLX_NLM_F_CREATE | CLX_NLM_F_EXCL, fixed: CLX_IFINFO_SIZE)
        message.add(CLX_IFLA_IFNAME, name)
        message.nest(CLX_IFLA_LINKINFO) { info in
            info.add(CLX_IFLA_INFO_KIND, "bridge")
            info.nest(CLX_IFLA_INFO_DATA) { data in
                data.add(CLX_IFLA_BR_AGEING_TIME, UInt32(ageing * 100))  // in 1/100 s, whatever the kernel's tick
                data.add(CLX_IFLA_BR_STP_STATE, UInt32(spanningTree ? 1 : 0))
                data.add(CLX_IFLA_BR_MCAST_SNOOPING, UInt8(0))
            }
        }
        try request(message, "creating bridge \(name)")
    }

    public func setUp(_ link: Int32) throws(KernelError) {
        var message = linkMessage(CLX_RTM_NEWLINK, link)
        message.fixed(UInt32(CLX_IFF_UP), at: 8)
        message.fixed(UInt32(CLX_IFF_UP), at: 12)
        try request(message, "setting interface \(link) up")
    }
    /// Makes an interface a port of a bridge; 0 takes it out.
    public func setMaster(_ link: Int32, _ bridge: Int32) throws(KernelError) {
        var message = linkMessage(CLX_RTM_NEWLINK, link)
        message.add(CLX_IFLA_MASTER, bridge)
        try request(message, "attaching interface \(link) to bridge \(bridge)")
    }
    public func setMTU(_ link: Int32, _ mtu: Int) throws(KernelError) {
        var message = linkMessage(CLX_RTM_NEWLINK, link)
        message.add(CLX_IFLA_MTU, UInt32(mtu))
        try request(message, "setting the MTU of interface \(link) to \(mtu)")
    }
    /// Moves an interface into another namespace, under another name if one is given. It goes down on the way.
    public func move(_ link: Int32, to namespace: NetworkNamespace, name: String? = nil) throws(KernelError) {
        var message = linkMessage(CLX_RTM_NEWLINK, link)
        message.add(CLX_IFLA_NET_NS_FD, namespace.descriptor.number)
        if let name { message.add(CLX_IFLA_IFNAME, name) }
        try request(message, "moving interface \(link) to another namespace")
    }
    /// Removes an interface (of a veth pair: both ends); nothing happens if it is gone already.
    public func delete(link: Int32) throws(KernelError) {
        do { try request(linkMessage(CLX_RTM_DELLINK, link), "removing interface \(link)") } catch {
            if error.errno != Errno(ENODEV) { throw error }
        }
    }

    private func linkMessage(_ type: Int, _ link: Int32) -> NetlinkMessage {
        var message = NetlinkMessage(type, fixed: CLX_IFINFO_SIZE)
        message.fixed(link, at: 4)
        return message
    }
}

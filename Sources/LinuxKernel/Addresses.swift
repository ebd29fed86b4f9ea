// Addresses, routes and neighbours of a namespace over rtnetlink.
import CLinux
import Glibc

/// An entry of the neighbour table that is of use elsewhere: an address and whose it is.
public struct Neighbour: Hashable, Sendable, Codable {
    /// IPv4 or IPv6 address in text.
    public let address: String
    public let mac: MACAddress
    public init(address: String, mac: MACAddress) {
        self.address = address
        self.mac = mac
    }
}

/// A route of the main table: destination prefix (nil: default), gateway (nil: directly connected), interface.
public struct Route: Hashable, Sendable {
    public let destination: IPPrefix?
    public let gateway: IPAddress?
    public let link: Int32
}

extension NetlinkSocket {
    /// Adds an address; IPv6 without duplicate detection, which would withhold it for a second.
    public func add(_ prefix: IPPrefix, to link: Int32) throws(KernelError) {
        var message = NetlinkMessage(
            CLX_RTM_NEWADDR, flags: CLX_NLM_F_CREATE | CLX_NLM_F_EXCL, fixed: CLX_IFADDR_SIZE)
        message.fixed(UInt8(prefix.address.family), at: 0)
        message.fixed(UInt8(prefix.length), at: 1)
        if prefix.address.isIPv6 { message.fixed(UInt8(CLX_IFA_F_NODAD), at: 2) }
        message.fixed(link, at: 4)
        message.add(CLX_IFA_LOCAL, prefix.address.bytes)
        message.add(CLX_IFA_ADDRESS, prefix.address.bytes)
        try request(message, "adding \(prefix) to interface \(link)")
    }

    /// The addresses of an interface.
    public func addresses(of link: Int32) throws(KernelError) -> [IPPrefix] {
        try dump(NetlinkMessage(CLX_RTM_GETADDR, fixed: CLX_IFADDR_SIZE), "listing addresses").compactMap { reply in
            guard reply.type == CLX_RTM_NEWADDR, reply.fixed(4, as: Int32.self) == link else { return nil }
            let attributes = reply.attributes(after: CLX_IFADDR_SIZE)
            guard let bytes = attributes[CLX_IFA_LOCAL] ?? attributes[CLX_IFA_ADDRESS], let address = IPAddress(bytes)
            else { return nil }
            return IPPrefix(address, length: Int(reply.fixed(1, as: UInt8.self)))
        }
    }

    /// Adds the default route by a gateway.
    public func addDefaultRoute(by gateway: IPAddress, link: Int32) throws(KernelError) {
        var message = NetlinkMessage(
            CLX_RTM_NEWROUTE, flags: CLX_NLM_F_CREATE | CLX_NLM_F_EXCL, fixed: CLX_RTMSG_SIZE)
        message.fixed(UInt8(gateway.family), at: 0)
        message.fixed(UInt8(CLX_RT_TABLE_MAIN), at: 4)
        message.fixed(UInt8(CLX_RTPROT_STATIC), at: 5)
        message.fixed(UInt8(CLX_RT_SCOPE_UNIVERSE), at: 6)
        message.fixed(UInt8(CLX_RTN_UNICAST), at: 7)
        message.add(CLX_RTA_GATEWAY, gateway.bytes)
        message.add(CLX_RTA_OIF, link)
        try request(message, "adding the default route by \(gateway)")
    }

    /// The unicast routes of the main table.
    public func routes() throws(KernelError) -> [Route] {
        try dump(NetlinkMessage(CLX_RTM_GETROUTE, fixed: CLX_RTMSG_SIZE), "listing routes").compactMap { reply in
            guard reply.type == CLX_RTM_NEWROUTE, reply.fixed(4, as: UInt8.self) == UInt8(CLX_RT_TABLE_MAIN),
                reply.fixed(7, as: UInt8.self) == UInt8(CLX_RTN_UNICAST)
            else { return nil }
            let attributes = reply.attributes(after: CLX_RTMSG_SIZE)
            let destination = attributes[CLX_RTA_DST].flatMap { IPAddress($0) }
            return Route(
                destination: destination.map { IPPrefix($0, length: Int(reply.fixed(1, as: UInt8.self))) },
                gateway: attributes[CLX_RTA_GATEWAY].flatMap { IPAddress($0) },
                link: attributes.integer(CLX_RTA_OIF) ?? 0)
        }
    }

    /// The rules that choose a routing table, each as the kernel has it.
    public func rules() throws(KernelError) -> [[UInt8]] {
        // RTM_GETRULE with an empty struct fib_rule_hdr, answered by RTM_NEWRULE.
        try dump(NetlinkMessage(34, fixed: 12), "listing routing rules").filter { $0.type == 32 }.map {
            [UInt8]($0.payload)
        }
    }

    /// The tables of nftables: "inet filter". Asks a socket of the family `netfilter`.
    public func filterTables() throws(KernelError) -> [String] {
        // NFT_MSG_GETTABLE with struct nfgenmsg; NFTA_TABLE_NAME is attribute 1.
        let families: [UInt8: String] = [1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"]
        return try dump(NetlinkMessage(10 << 8 | 1, fixed: 4), "listing the tables of nftables").map {
            let family = $0.fixed(0, as: UInt8.self)
            return "\(families[family] ?? "family \(family)") \($0.attributes(after: 4).text(1) ?? "?")"
        }
    }

    /// The neighbours of an interface whose link-layer address is known.
    public func neighbours(of link: Int32) throws(KernelError) -> [Neighbour] {
        let known = UInt16(
            CLX_NUD_REACHABLE | CLX_NUD_STALE | CLX_NUD_DELAY | CLX_NUD_PROBE | CLX_NUD_PERMANENT)
        return try dump(NetlinkMessage(CLX_RTM_GETNEIGH, fixed: CLX_NDMSG_SIZE), "listing neighbours").compactMap {
            reply in
            guard reply.type == CLX_RTM_NEWNEIGH, reply.fixed(4, as: Int32.self) == link,
                reply.fixed(8, as: UInt16.self) & known != 0
            else { return nil }
            let attributes = reply.attributes(after: CLX_NDMSG_SIZE)
            guard let address = attributes[CLX_NDA_DST].flatMap({ IPAddress($0) }),
                let mac = attributes[CLX_NDA_LLADDR].flatMap({ MACAddress($0) })
            else { return nil }
            return Neighbour(address: address.description, mac: mac)
        }
    }

}

extension Neighbour {
    /// The request that adds it to an interface as if it had just been heard; an entry there already is replaced.
    public func addition(to link: Int32) throws(KernelError) -> NetlinkMessage {
        guard let target = IPAddress(address) else { throw KernelError("adding neighbour \(address)", .invalid) }
        var message = NetlinkMessage(
            CLX_RTM_NEWNEIGH, flags: CLX_NLM_F_CREATE | CLX_NLM_F_REPLACE, fixed: CLX_NDMSG_SIZE)
        message.fixed(UInt8(target.family), at: 0)
        message.fixed(link, at: 4)
        message.fixed(UInt16(CLX_NUD_REACHABLE), at: 8)
        message.add(CLX_NDA_DST, target.bytes)
        message.add(CLX_NDA_LLADDR, mac.bytes)
        return message
    }
}

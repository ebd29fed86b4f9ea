// Making and removing a container's network: a namespace kept by a file, and a veth pair into a bridge.
import Glibc
import LinuxKernel

/// A container's network namespace attached to this host's bridge.
///
/// Every function works in the calling thread's network namespace, which is the host's.
public enum ContainerNetwork {
    /// A walk over the host's table, which listing connections in the freeze is, takes 0.15 to 1.1 ms with 262,144
    /// buckets, over this one 0.03; tens of thousands of connections still find their place in it.
    private static let connectionBuckets = 4096

    /// Makes the namespace and the veth pair that `attachment` names and attaches it to the bridge.
    ///
    /// Plugged, it is the destination of a move: the namespace is complete, the port holds what comes for it (see
    /// `DestinationHandover`) and lets nothing out. If anything fails, what was made is removed again.
    /// Otherwise it asks for its addresses first.
    /// - Throws: `.exists` if a part of it is there already; EADDRINUSE if somebody has one of its addresses.
    public static func attach(_ spec: NetworkSpec, _ attachment: NetworkAttachment, plugged: Bool = false)
        throws(KernelError)
    {
        let route = try NetlinkSocket()
        let bridge = try route.link(attachment.bridge)
        let prefixes = try spec.prefixes()
        // What is there is not ours to take back when the rest fails.
        if try route.linkIfPresent(attachment.port) != nil { throw KernelError("making \(attachment.port)", .exists) }
        let namespace = try NetworkNamespace.create(
            at: attachment.namespace, connectionBuckets: connectionBuckets)
        do throws(KernelError) {
            if !prefixes.contains(where: { $0.address.isIPv6 }) {
                try namespace.setSysctl("net/ipv6/conf/all/disable_ipv6", "1")
                try namespace.setSysctl("net/ipv6/conf/default/disable_ipv6", "1")
            } else {
                // The kernel's own link-local address would be announced and probed for: frames at the wrong time.
                try namespace.setSysctl("net/ipv6/conf/default/addr_gen_mode", "1")
                try namespace.setSysctl("net/ipv6/conf/default/accept_ra", "0")
                try namespace.setSysctl("net/ipv6/conf/default/accept_dad", "0")
            }
            try route.createVeth(
                attachment.port, mac: portAddress(spec.mac), mtu: spec.mtu,
                peer: VethPeer(name: spec.interface, mac: spec.mac, namespace: namespace))
            let port = try route.link(attachment.port)
            // For `ConnectionHold`; a kernel without it only moves busy servers less often.
            try? route.request(TrafficFilter.room(on: port.index), "making room for filters on \(attachment.port)")
            let inside = try NetlinkSocket(in: namespace)
            let interface = try inside.link(spec.interface)
            try inside.setUp(try inside.link("lo").index)
            try inside.setUp(interface.index)
            if plugged { try Plug.insert(at: port.index, route) }
            try route.setUp(port.index)
            try waitUntilOperational(port.index, route)
            if plugged {
                try Plug.burn(by: PacketSocket(on: port.index), at: port.index, route)
                let backhaul = try route.link(attachment.backhaul)
                try route.request(
                    BridgePort.forward(spec.mac, to: backhaul.index, .sticky), "pointing \(spec.mac) at the backhaul")
            }
            try route.setMaster(port.index, bridge.index)
            if plugged {
                try route.request(BridgePort.set(port.index, .disabled), "muting \(attachment.port)")
            }
            if !plugged {
                let probe = try AddressProbe(prefixes.map(\.address), by: spec.mac, on: interface.index, in: namespace)
                if let (address, owner) = try probe.run() {
                    throw KernelError("taking address \(address), which \(owner) has", Errno(EADDRINUSE))
                }
            }
            for prefix in prefixes { try inside.add(prefix, to: interface.index) }
            for text in spec.gateways {
                guard let gateway = IPAddress(text) else { throw KernelError("reading gateway \(text)", .invalid) }
                try inside.addDefaultRoute(by: gateway, link: interface.index)
            }
            // Whoever knew the address elsewhere learns of its place; the destination of a move says so at the release.
            if !plugged { try Announcer(spec, attachment).announce() }
        } catch {
            try? detach(spec, attachment)
            throw error
        }
    }

    /// A bridge without an address of its own takes the lowest of its ports', so a container's random one could change
    /// what the host's neighbours know it by. The highest there are never do; and it must not be the container's.
    static func portAddress(_ container: MACAddress) -> MACAddress {
        MACAddress([container.bytes[0] == 0xfe ? 0xfa : 0xfe] + container.bytes.dropFirst())!
    }

    /// Removes everything that `attach` made, whatever part of it is there, and all entries of the container's address
    /// that a move left in the bridge.
    public static func detach(_ spec: NetworkSpec, _ attachment: NetworkAttachment) throws(KernelError) {
        let route = try NetlinkSocket()
        try ConnectionHold.remove(attachment, route)
        if let port = try route.linkIfPresent(attachment.port) { try route.delete(link: port.index) }
        try forget(spec.mac, attachment, route)
        try NetworkNamespace.remove(at: attachment.namespace)
    }

    /// Removes the entries that lead the container's frames to a backhaul. All of them, whichever host they lead to:
    /// one that outlives its move would mislead frames as long as the bridge stands, since it neither ages nor learns.
    static func forget(_ mac: MACAddress, _ attachment: NetworkAttachment, _ route: NetlinkSocket)
        throws(KernelError)
    {
        guard let bridge = try route.linkIfPresent(attachment.bridge) else { return }
        for entry in try route.forwardingEntries(of: bridge.index) where entry.mac == mac && entry.isStatic {
            do { try route.request(BridgePort.forget(mac, at: entry.port), "forgetting \(mac)") } catch {
                if error.errno != .noEntry { throw error }
            }
        }
    }

    /// The neighbours that the container's namespace knows, for the one at the destination.
    public static func neighbours(_ spec: NetworkSpec, _ attachment: NetworkAttachment) throws(KernelError)
        -> [Neighbour]
    {
        let inside = try NetlinkSocket(in: try NetworkNamespace(opening: attachment.namespace))
        return try inside.neighbours(of: try inside.link(spec.interface).index)
    }

    /// Makes `port` a port of `bridge` that carries only containers' frames from host to host: nothing is flooded to it
    /// and no address is learned from it. So hosts may be joined by it and by an access network, without a loop.
    ///
    /// Calling it again does nothing.
    /// - Throws: `ContainerError` if it cannot be one, with what to do.
    public static func makeBackhaul(_ port: String, of bridge: String) throws {
        let route = try NetlinkSocket()
        guard let master = try route.linkIfPresent(bridge), master.kind == "bridge" else {
            throw ContainerError("there is no bridge \(bridge): make it (`ip link add \(bridge) type bridge`)")
        }
        if master.hasSpanningTree {
            throw ContainerError(
                "bridge \(bridge) has a spanning tree, which would set the states of its ports: switch it off"
                    + " (`ip link set \(bridge) type bridge stp_state 0`)")
        }
        guard let link = try route.linkIfPresent(port) else {
            throw ContainerError(
                "there is no interface \(port), by which \(bridge) leads to another host: make it (the README's commands)"
            )
        }
        if link.master != 0 && link.master != master.index {
            throw ContainerError("\(port) is a port of another bridge than \(bridge): give it to that one")
        }
        // Flooding is off before the first frame can pass, if whoever made the port left that to us.
        if link.master == 0 { try route.setMaster(link.index, master.index) }
        try route.request(
            BridgePort.set(link.index, flooding: false, learning: false), "making \(port) a backhaul")
        if !link.isUp { try route.setUp(link.index) }
    }

    /// Waits until frames pass: the kernel looks at a new carrier up to a second late, and changes a bridge port's
    /// state when it does.
    static func waitUntilOperational(_ link: Int32, _ route: NetlinkSocket) throws(KernelError) {
        for _ in 0..<3000 {
            if try route.links().contains(where: { $0.index == link && $0.isOperational }) { return }
            usleep(1000)
        }
        throw KernelError("waiting for interface \(link) to see its carrier", .timedOut)
    }
}

/// The tbf that holds frames back on the port of a container that is still to come.
enum Plug {
    /// Puts it in; until it is burned, its burst leaks.
    static func insert(at port: Int32, _ route: NetlinkSocket) throws(KernelError) {
        try route.request(TokenBucket.plug.set(on: port, creating: true), "plugging interface \(port)")
    }
    /// Uses up the burst with frames for nobody and sees that the queue holds: an unburned bucket would leak frames
    /// into a namespace without sockets, whose resets end the connections.
    static func burn(by packets: PacketSocket, at port: Int32, _ route: NetlinkSocket) throws(KernelError) {
        let frame = Frame.dummy(size: 1500)
        for _ in 0..<180 { try packets.send(frame) }
        guard let backlog = try route.tokenBucketBacklog(of: port), backlog.packets > 0 else {
            throw KernelError("plugging interface \(port): the queue does not hold", .again)
        }
    }
}

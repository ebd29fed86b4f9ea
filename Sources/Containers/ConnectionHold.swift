// New connections to a container wait outside until it has come to those that it has.
import Glibc
import LinuxKernel

/// Holds the first segments of new TCP connections to a container, in order and without dropping any, while everything
/// else passes.
///
/// They are diverted at the container's port into a queue that lets nothing out, in front of another port of the
/// bridge. Let go, they enter the bridge there, which sends them to wherever the container is then.
public final class ConnectionHold: Sendable {
    private let attachment: NetworkAttachment
    private let route: NetlinkSocket
    private let port, queue: Int32
    private let starter: PacketSocket
    /// The first frame after the queue was opened starts it; it is for the bridge itself, which drops it.
    private let start: [UInt8]

    /// Makes the queue. Takes up to a second (the kernel's carrier watch), in which nothing is held yet.
    public init(_ spec: NetworkSpec, _ attachment: NetworkAttachment) throws(KernelError) {
        self.attachment = attachment
        route = try NetlinkSocket()
        try Self.remove(attachment, route)
        let (entrance, exit) = Self.names(attachment)
        let here = try NetworkNamespace(opening: "/proc/thread-self/ns/net")
        let mac = MACAddress([0xf6] + spec.mac.bytes.dropFirst())!
        try route.createVeth(entrance, mtu: spec.mtu, peer: VethPeer(name: exit, mac: mac, namespace: here))
        do throws(KernelError) {
            port = try route.link(attachment.port).index
            queue = try route.link(entrance).index
            let out = try route.link(exit).index
            for name in [entrance, exit] {
                // The kernel's own solicitations would enter the bridge; there are none where IPv6 is off altogether.
                try? SmallFile.write("1", to: "/proc/sys/net/ipv6/conf/\(name)/disable_ipv6")
            }
            try route.request(Self.closed.set(on: queue, creating: true), "plugging \(entrance)")
            for link in [queue, out] { try route.setUp(link) }
            for link in [queue, out] { try ContainerNetwork.waitUntilOperational(link, route) }
            starter = try PacketSocket(on: queue)
            start = mac.bytes + Frame.dummy().dropFirst(6)
            // Nothing may pass by what the queue would let out at once.
            for _ in 0..<Int(Self.closed.burst) / start.count + 1 { try starter.send(start) }
            guard let backlog = try route.tokenBucketBacklog(of: queue), backlog.packets > 0 else {
                throw KernelError("plugging \(entrance): the queue does not hold", .again)
            }
            try route.setMaster(out, try route.link(attachment.bridge).index)
            try route.request(BridgePort.set(out, flooding: false, learning: false), "making \(exit) an entrance only")
        } catch {
            try? Self.remove(attachment, try NetlinkSocket())
            throw error
        }
    }

    /// A byte a second, and room for thousands of connections.
    private static let closed = TokenBucket(rate: 1, burst: 2048, limit: 4 << 20)

    private static func names(_ attachment: NetworkAttachment) -> (entrance: String, exit: String) {
        ("h" + attachment.port.dropFirst(), "i" + attachment.port.dropFirst())
    }

    /// From here on new connections wait.
    public func begin() throws(KernelError) {
        try route.request(TrafficFilter.divertConnections(from: port, to: queue), "holding new connections back")
    }

    /// Lets them go on, in their order, and removes the queue.
    public func end() throws(KernelError) {
        do throws(KernelError) {
            try route.request(TrafficFilter.remove(from: port), "letting new connections pass")
            try route.request(TokenBucket.open.set(on: queue, creating: false), "opening interface \(queue)")
            try starter.send(start)
            // What has left the queue is on its way through the bridge.
            usleep(2000)
            try route.delete(link: queue)
        } catch {
            try? Self.remove(attachment, route)
            throw error
        }
    }

    /// Removes whatever there is of it; connections that wait are begun again by their clients, a second later.
    static func remove(_ attachment: NetworkAttachment, _ route: NetlinkSocket) throws(KernelError) {
        guard let link = try route.linkIfPresent(names(attachment).entrance) else { return }
        if let port = try route.linkIfPresent(attachment.port) {
            // It may not have begun.
            try? route.request(TrafficFilter.remove(from: port.index), "letting new connections pass")
        }
        try route.delete(link: link.index)
    }
}

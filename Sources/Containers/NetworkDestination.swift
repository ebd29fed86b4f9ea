// The destination's side of a network handover: a port ready but muted, that holds frames and then lets them go.
import Glibc
import LinuxKernel

/// What the destination makes in a handover, as data: enough for another process to take it away.
public struct DestinationHandoverRecord: Codable, Sendable, Hashable {
    public let spec: NetworkSpec
    public let attachment: NetworkAttachment
    public init(_ spec: NetworkSpec, _ attachment: NetworkAttachment) {
        self.spec = spec
        self.attachment = attachment
    }

    /// The first step of the way back, before anything else is taken apart: nothing leaves the container's port any
    /// more, and if frames were held here, they lead to the source again. Calling it again, or without a port, does
    /// nothing.
    ///
    /// The source may still send the container's frames here. Held, they would be lost to clients of this host as long
    /// as the rest takes. Without an entry they would be flooded into the access network, which takes them to the
    /// source again: in a circle, and every bridge on it would learn the clients' addresses at the wrong port. The
    /// source drops what comes by the port it left by, until it runs on. The entry is as learned: it follows the
    /// container as soon as that says where it is.
    public func giveBack() throws(KernelError) {
        let route = try NetlinkSocket()
        guard let port = try route.linkIfPresent(attachment.port), port.master != 0 else { return }
        let entries = try route.forwardingEntries(of: port.master)
        try route.request(BridgePort.set(port.index, .disabled), "muting \(attachment.port)")
        guard entries.contains(where: { $0.mac == spec.mac && $0.port == port.index }),
            let backhaul = try route.linkIfPresent(attachment.backhaul)
        else { return }
        // Refused at a port that does not forward; then nothing comes by it.
        try? route.request(
            BridgePort.forward(spec.mac, to: backhaul.index, .learned), "leading \(spec.mac) back to its source")
    }

    /// Removes whatever `prepare` made. Frames held at that moment are lost (their senders repeat them).
    public func abort() throws(KernelError) {
        // Whatever keeps it from that: what was made goes all the same.
        try? giveBack()
        try ContainerNetwork.detach(spec, attachment)
    }
}

/// The handover at the destination, prepared before the freeze so that each step in it is one send.
///
/// Works in the network namespace of the thread that prepares it; the steps may be called from any thread.
public final class DestinationHandover: Sendable {
    public let record: DestinationHandoverRecord
    private let route: NetlinkSocket
    private let port: Int32
    private let acceptance, refusal, release: NetlinkBatch
    /// Nil: the source's namespace knew no neighbours.
    private let introduction: NetlinkBatch?
    private let starter: PacketSocket
    private let announcer: Announcer
    private let interior: NetlinkSocket

    /// Makes the container's network at this host, plugged and muted, and prepares the steps. Takes up to a second (the
    /// kernel's carrier watch). Write the record down before calling.
    ///
    /// - Parameter neighbours: those that the source's namespace knows. The new one learns them in `open` and not
    ///   before: until then whatever its sockets send waits there for an address, so a copy that dies before its release
    ///   says nothing to its clients. The kernel closes its connections, which are restored by then, with a reset.
    public static func prepare(_ record: DestinationHandoverRecord, neighbours: [Neighbour]) throws(KernelError)
        -> DestinationHandover
    {
        try ContainerNetwork.attach(record.spec, record.attachment, plugged: true)
        do { return try DestinationHandover(record, neighbours) } catch {
            try? record.abort()
            throw error
        }
    }

    private init(_ record: DestinationHandoverRecord, _ neighbours: [Neighbour]) throws(KernelError) {
        self.record = record
        let attachment = record.attachment, mac = record.spec.mac
        route = try NetlinkSocket()
        let ports = try HandoverPorts(attachment, route)
        acceptance = NetlinkBatch(
            "pointing the container's address at its new port",
            [BridgePort.set(ports.port, .forwarding), BridgePort.forward(mac, to: ports.port, .sticky)])
        port = ports.port
        refusal = NetlinkBatch(
            "pointing the container's address at the backhaul",
            [BridgePort.forward(mac, to: ports.backhaul, .sticky), BridgePort.set(ports.port, .disabled)])
        release = NetlinkBatch(
            "letting the held frames go", [TokenBucket.open.set(on: ports.port, creating: false)])
        starter = try PacketSocket(on: ports.port)
        announcer = try Announcer(record.spec, attachment)
        let namespace = try NetworkNamespace(opening: attachment.namespace)
        interior = try NetlinkSocket(in: namespace)
        let interface = try interior.link(record.spec.interface).index
        let additions = try neighbours.map { neighbour throws(KernelError) in try neighbour.addition(to: interface) }
        introduction = additions.isEmpty ? nil : NetlinkBatch("adding the container's neighbours", additions)
    }

    /// Frames for the container are held here from now on. Comes before the source's `redirect`: the other order makes
    /// this host drop what the source sends.
    public func accept() throws(KernelError) { try route.request(acceptance) }

    /// Takes `accept` back: the handover is put off, and the container's frames go to its source again. What was held
    /// is dropped: its senders have repeated it before there is another release.
    public func decline() throws(KernelError) {
        try route.request(refusal)
        try route.request(TokenBucket.remove(from: port), "emptying interface \(port)")
        try Plug.insert(at: port, route)
        try Plug.burn(by: starter, at: port, route)
    }

    /// Lets the held frames go, in order, and tells the network that the container is here. After the sockets are back.
    public func open() throws(KernelError) {
        try route.request(release)
        if let introduction { try interior.request(introduction) }
        try starter.send(DestinationHandover.dummy)
        try announcer.announce()
    }
    /// A change does not run the queue; a frame does.
    private static let dummy = Frame.dummy()

    /// Some time after: lets the bridge learn again, so that the container can move on. The queue stays, open, as long
    /// as the port: the kernel drops what passes while a queue is removed. Nothing happens if the container has moved
    /// on already.
    public func finish() throws(KernelError) { try DestinationHandover.finish(record, port) }

    /// The same from the record alone; nothing happens to what is finished already.
    ///
    /// - Parameter port: the index that the port had; nil: any.
    public static func finish(_ record: DestinationHandoverRecord, _ port: Int32? = nil) throws(KernelError) {
        let route = try NetlinkSocket()
        guard let link = try route.linkIfPresent(record.attachment.port), port == nil || port == link.index else {
            return
        }
        let entries = try route.forwardingEntries(of: link.master)
        guard entries.contains(where: { $0.mac == record.spec.mac && $0.port == link.index && $0.isStatic }) else {
            return
        }
        if try route.tokenBucketBacklog(of: link.index) != nil {
            // The one before us may have died before it opened it.
            try route.request(TokenBucket.open.set(on: link.index, creating: false), "opening interface \(link.index)")
            try PacketSocket(on: link.index).send(dummy)
        }
        try route.request(
            BridgePort.forward(record.spec.mac, to: link.index, .learned), "letting the bridge learn again")
        try Announcer(record.spec, record.attachment).announce()
    }

    /// Takes everything away again.
    public func abort() throws(KernelError) { try record.abort() }
}

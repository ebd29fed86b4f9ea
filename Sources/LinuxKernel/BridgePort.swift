// Ports of a bridge: the forwarding entry of an address, the state of a port and what is flooded to it.
//
// These are the switches of a handover, so each exists as a message to be prepared beforehand.
import CLinux
import Glibc

/// Messages about one port of a bridge, for `NetlinkSocket.request` or a `NetlinkBatch`.
public enum BridgePort {
    /// How a forwarding entry behaves.
    public enum Entry: Sendable {
        /// Stays where it is: neither ages nor follows frames that come in by another port.
        case sticky
        /// As if learned: ages, and follows the frames. The port must be forwarding.
        case learned
    }
    public enum State: UInt8, Sendable {
        /// Silent in both directions. Survives only on a bridge without spanning tree, and until the interface's
        /// carrier or operational state changes. (BLOCKING would fall back to forwarding.)
        case disabled = 0
        case forwarding = 3
    }

    /// Frames to `mac` leave by `port` (RTM_NEWNEIGH of AF_BRIDGE, replacing any other entry).
    public static func forward(_ mac: MACAddress, to port: Int32, _ entry: Entry) -> NetlinkMessage {
        var message = NetlinkMessage(
            CLX_RTM_NEWNEIGH, flags: CLX_NLM_F_CREATE | CLX_NLM_F_REPLACE, fixed: CLX_NDMSG_SIZE)
        fill(&message, mac, port)
        switch entry {
        case .sticky:
            message.fixed(UInt16(CLX_NUD_NOARP), at: 8)
            message.fixed(UInt8(CLX_NTF_MASTER | CLX_NTF_STICKY), at: 10)
        case .learned: message.fixed(UInt16(CLX_NUD_REACHABLE), at: 8)
        }
        return message
    }
    /// Removes the entry of `mac` at `port`; the answer is `.noEntry` if it is elsewhere or gone.
    public static func forget(_ mac: MACAddress, at port: Int32) -> NetlinkMessage {
        var message = NetlinkMessage(CLX_RTM_DELNEIGH, fixed: CLX_NDMSG_SIZE)
        fill(&message, mac, port)
        return message
    }
    private static func fill(_ message: inout NetlinkMessage, _ mac: MACAddress, _ port: Int32) {
        message.fixed(UInt8(AF_BRIDGE), at: 0)
        message.fixed(port, at: 4)
        message.fixed(UInt8(CLX_NTF_MASTER), at: 10)
        message.add(CLX_NDA_LLADDR, mac.bytes)
    }

    /// Sets a port's state.
    public static func set(_ port: Int32, _ state: State) -> NetlinkMessage {
        port_(port) { $0.add(CLX_IFLA_BRPORT_STATE, state.rawValue) }
    }
    /// Whether frames without an entry (unknown, broadcast, multicast) go to a port, and whether addresses are learned
    /// from it. A port between hosts with neither carries only what an entry sends there, so it closes no loop.
    public static func set(_ port: Int32, flooding: Bool, learning: Bool) -> NetlinkMessage {
        port_(port) {
            $0.add(CLX_IFLA_BRPORT_LEARNING, UInt8(learning ? 1 : 0))
            $0.add(CLX_IFLA_BRPORT_UNICAST_FLOOD, UInt8(flooding ? 1 : 0))
            $0.add(CLX_IFLA_BRPORT_MCAST_FLOOD, UInt8(flooding ? 1 : 0))
            $0.add(CLX_IFLA_BRPORT_BCAST_FLOOD, UInt8(flooding ? 1 : 0))
            // What the bridge's own address says to all goes to every port, whatever its flags, but for those that
            // answer ARP in others' place.
            $0.add(CLX_IFLA_BRPORT_PROXYARP, UInt8(flooding ? 0 : 1))
        }
    }
    private static func port_(_ port: Int32, _ attributes: (inout NetlinkMessage) -> Void) -> NetlinkMessage {
        var message = NetlinkMessage(CLX_RTM_SETLINK, fixed: CLX_IFINFO_SIZE)
        message.fixed(UInt8(AF_BRIDGE), at: 0)
        message.fixed(port, at: 4)
        message.nest(CLX_IFLA_PROTINFO, flagged: true, attributes)
        return message
    }
    private static let AF_BRIDGE: Int32 = 7
}

/// A forwarding entry as the kernel lists it.
public struct ForwardingEntry: Hashable, Sendable {
    public let mac: MACAddress
    /// Index of the port its frames leave by.
    public let port: Int32
    /// Neither ages nor moves by itself.
    public let isStatic: Bool
    /// Index of the bridge.
    public let bridge: Int32
}

extension NetlinkSocket {
    /// The forwarding entries of all bridges of the namespace, or of one.
    public func forwardingEntries(of bridge: Int32? = nil) throws(KernelError) -> [ForwardingEntry] {
        var message = NetlinkMessage(CLX_RTM_GETNEIGH, fixed: CLX_IFINFO_SIZE)
        message.fixed(UInt8(7), at: 0)  // AF_BRIDGE
        return try dump(message, "listing forwarding entries").compactMap { reply in
            let attributes = reply.attributes(after: CLX_NDMSG_SIZE)
            let master = attributes.integer(CLX_NDA_MASTER, as: Int32.self) ?? 0
            guard reply.type == CLX_RTM_NEWNEIGH, let mac = attributes[CLX_NDA_LLADDR].flatMap({ MACAddress($0) }),
                master != 0, bridge == nil || master == bridge
            else { return nil }
            let state = reply.fixed(8, as: UInt16.self)
            return ForwardingEntry(
                mac: mac, port: reply.fixed(4), isStatic: state & UInt16(CLX_NUD_NOARP | CLX_NUD_PERMANENT) != 0,
                bridge: master)
        }
    }
    /// The state of a bridge's port (BR_STATE_*), or nil if the interface is none.
    public func portState(of link: Int32) throws(KernelError) -> UInt8? {
        var message = NetlinkMessage(CLX_RTM_GETLINK, fixed: CLX_IFINFO_SIZE)
        message.fixed(UInt8(7), at: 0)  // AF_BRIDGE
        for reply in try dump(message, "listing bridge ports") where reply.fixed(4, as: Int32.self) == link {
            let attributes = reply.attributes(after: CLX_IFINFO_SIZE)
            if let state = attributes.nest(CLX_IFLA_PROTINFO)?.integer(CLX_IFLA_BRPORT_STATE, as: UInt8.self) {
                return state
            }
        }
        return nil
    }
}

// The TCP sockets of a namespace, also those that no descriptor leads to (sock_diag(7), inet_diag).
import CLinux
import Glibc

/// TCP's states under the kernel's numbers (include/net/tcp_states.h).
public enum TCPState: UInt8, Sendable, CaseIterable {
    case established = 1, synSent, synReceived, finWait1, finWait2, timeWait, close, closeWait, lastAck, listen, closing
    /// A connection request that has no socket yet; listed by inet_diag as SYN_RECV.
    case newSynReceived
}

/// One TCP socket as inet_diag lists it.
public struct TCPSocketEntry: Sendable, CustomStringConvertible {
    public let family: Int32
    /// nil: a state newer than this program.
    public let state: TCPState?
    public let local: IPAddress?
    public let localPort: UInt16
    public let remote: IPAddress?
    public let remotePort: UInt16
    /// 0: no process has a descriptor of it.
    public let inode: UInt32
    /// Bytes not read yet; of a listener: connections waiting to be accepted.
    public let receiveQueue: UInt32
    /// Bytes not acknowledged yet; of a listener: the most that may wait.
    public let sendQueue: UInt32
    /// Has keys for TCP MD5 signatures (seen with CAP_NET_ADMIN).
    public let hasMD5Keys: Bool

    public var description: String {
        let end = { (address: IPAddress?, port: UInt16) in "\(address.map { "\($0)" } ?? "?"):\(port)" }
        return "\(end(local, localPort)) - \(end(remote, remotePort)) \(state.map { "\($0)" } ?? "unknown state")"
    }
}

extension NetlinkSocket {
    /// All TCP sockets of the namespace whose state is in `states`; the socket must be of `.socketDiagnosis`.
    public func tcpSockets(states: Set<TCPState> = Set(TCPState.allCases)) throws(KernelError) -> [TCPSocketEntry] {
        // The older request lists both families in one walk over the host's hash table, which is what a dump costs:
        // 145 to 1,100 µs with 262,144 buckets, in each namespace that has no table of its own.
        var message = NetlinkMessage(CLX_TCPDIAG_GETSOCK, fixed: CLX_INET_DIAG_REQ_SIZE)
        message.fixed(UInt8(AF_INET), at: 0)
        message.fixed(states.reduce(UInt32(0)) { $0 | 1 << UInt32($1.rawValue) }, at: 52)
        return try dump(message, "listing TCP sockets").filter { $0.type == CLX_TCPDIAG_GETSOCK }.map {
            TCPSocketEntry($0)
        }
    }

    /// Inodes of the UDP sockets of the namespace of which sending alone is shut down (SHUT_WR), which poll(2) does not
    /// show; the socket must be of `.socketDiagnosis`. Empty where the kernel cannot list them (CONFIG_INET_UDP_DIAG).
    public func udpSocketsShutDownForSending() throws(KernelError) -> Set<UInt32> {
        var found: Set<UInt32> = []
        for family in [AF_INET, AF_INET6] {
            // struct inet_diag_req_v2: family, protocol, ext, pad, states, id.
            var message = NetlinkMessage(CLX_SOCK_DIAG_BY_FAMILY, fixed: CLX_INET_DIAG_REQ_V2_SIZE)
            message.fixed(UInt8(family), at: 0)
            message.fixed(UInt8(IPPROTO_UDP), at: 1)
            message.fixed(UInt32.max, at: 4)
            let replies: [NetlinkReply]
            do throws(KernelError) { replies = try dump(message, "listing UDP sockets") } catch {
                if error.errno == .noEntry { continue }
                throw error
            }
            for reply in replies where reply.type == CLX_SOCK_DIAG_BY_FAMILY {
                let directions = reply.attributes(after: CLX_INET_DIAG_MSG_SIZE)
                    .integer(CLX_INET_DIAG_SHUTDOWN, as: UInt8.self)
                // SEND_SHUTDOWN.
                if directions == 2 { found.insert(reply.fixed(68)) }
            }
        }
        return found
    }
}

extension TCPSocketEntry {
    /// From struct inet_diag_msg: family, state, timer, retrans; sport, dport, src[16], dst[16], if, cookie[2];
    /// expires, rqueue, wqueue, uid, inode.
    init(_ reply: NetlinkReply) {
        family = Int32(reply.fixed(0, as: UInt8.self))
        state = TCPState(rawValue: reply.fixed(1, as: UInt8.self))
        localPort = reply.fixed(4, as: UInt16.self).bigEndian
        remotePort = reply.fixed(6, as: UInt16.self).bigEndian
        let size = family == AF_INET6 ? 16 : 4
        local = IPAddress(reply.payload.dropFirst(8).prefix(size))
        remote = IPAddress(reply.payload.dropFirst(24).prefix(size))
        receiveQueue = reply.fixed(56)
        sendQueue = reply.fixed(60)
        inode = reply.fixed(68)
        hasMD5Keys = reply.attributes(after: CLX_INET_DIAG_MSG_SIZE)[CLX_INET_DIAG_MD5SIG] != nil
    }
}

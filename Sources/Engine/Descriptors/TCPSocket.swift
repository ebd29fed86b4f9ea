// TCP sockets: what can be carried, and the calls that capture and restore share.
//
// All functions work on a plain descriptor of the socket (pidfd_getfd gives one) and need CAP_NET_ADMIN over its
// network namespace. Facts: tcp(7), Documentation of TCP_REPAIR in the kernel's commit ee9952831cfd ("tcp: Initial
// repair mode"), and measurements.
import CLinux
import Foundation
import LinuxKernel

/// Capture and restore of TCP sockets by TCP_REPAIR.
///
/// Carried: listening sockets; connections in ESTABLISHED and CLOSE_WAIT with both queues, unsent data, sequence
/// numbers, windows, window scale, SACK, timestamps and options. Not carried, harmless: segments received out of order
/// (the peer still has them and sends them again), ECN (used no more), round-trip and congestion estimates (learned
/// again).
public enum TCPSocket: InetSocket {
    /// What has to be known of a connection from before its repair.
    public struct Repair: Codable, Sendable, Hashable {
        /// SO_REUSEADDR; repair mode overwrites it.
        public var reuseAddress: Bool
        /// Bytes written by the program and not sent, and bytes sent until then (each once), both at the same instant.
        var unsent: UInt32, sent: UInt64
    }

    /// Where a connection stands. Equal before and after means: nothing came or went in between.
    public struct Position: Equatable, Sendable {
        /// Behind the last byte that the program has written.
        public var sendSequence: UInt32
        /// The next byte that the peer is to send (behind its FIN in CLOSE_WAIT).
        public var receiveSequence: UInt32
        /// Bytes not acknowledged, those not sent among them.
        public var sendQueue: UInt32
        /// Bytes not read.
        public var receiveQueue: UInt32
    }

    /// Why this socket cannot be carried, or nil. Asks only; for before the freeze.
    ///
    /// Signature keys (TCP MD5) show in `TCPDrain.signed`, and connections not accepted yet in `pendingAccepts`.
    public static func obstacle(_ fd: Int32) -> String? {
        do throws(KernelError) {
            let protocolNumber = try get(fd, SOL_SOCKET, SO_PROTOCOL)
            if protocolNumber == IPPROTO_MPTCP { return "multipath TCP" }
            guard protocolNumber == Int32(IPPROTO_TCP) else { return "protocol \(protocolNumber), not TCP" }
            let state = try info(fd).state
            switch TCPState(rawValue: state) {
            case .established, .closeWait, .listen: break
            case .close: return "TCP socket neither connected nor listening"
            case let other: return "TCP connection in state \(other.map { "\($0)" } ?? "\(state)")"
            }
            var ulp = [UInt8](repeating: 0, count: 16), size = UInt32(ulp.count)
            if clx_getsockopt(fd, Int32(IPPROTO_TCP), TCP_ULP, &ulp, &size) == 0, size > 0, ulp[0] != 0 {
                return "TCP with upper layer protocol \(String(decoding: ulp.prefix { $0 != 0 }, as: UTF8.self))"
            }
            var ao = [UInt8](repeating: 0, count: 48)
            size = UInt32(ao.count)
            if clx_getsockopt(fd, Int32(IPPROTO_TCP), TCP_AO_INFO, &ao, &size) == 0 { return "TCP authentication" }
            if let obstacle = try commonObstacle(fd) { return obstacle }
            if let option = uncarriedOption(fd) { return "TCP socket with \(option), not carried yet" }
            if state == TCPState.listen.rawValue { return nil }
            if try get(fd, Int32(IPPROTO_TCP), TCP_REPAIR) != 0 { return "TCP connection under repair by another" }
            let events = poll(fd)
            if events & POLLPRI != 0 { return "TCP urgent data" }
            if events & POLLERR != 0 { return "TCP connection with an error pending" }
            return nil
        } catch { return "\(error)" }
    }

    /// Connections in a listener's queue that its program has not accepted; they have no descriptor and are not
    /// carried.
    public static func pendingAccepts(_ fd: Int32) throws(KernelError) -> Int { Int(try info(fd).unacknowledged) }

    /// Reads where a connection stands; it must be under repair. Leaves it at the send queue, see `beginRepair`.
    public static func position(_ fd: Int32) throws(KernelError) -> Position {
        try set(fd, TCP_REPAIR_QUEUE, receiveQueueNumber)
        let receiveSequence = UInt32(bitPattern: try get(fd, Int32(IPPROTO_TCP), TCP_QUEUE_SEQ))
        try set(fd, TCP_REPAIR_QUEUE, sendQueueNumber)
        let sendSequence = UInt32(bitPattern: try get(fd, Int32(IPPROTO_TCP), TCP_QUEUE_SEQ))
        return Position(
            sendSequence: sendSequence, receiveSequence: receiveSequence,
            sendQueue: try queued(fd, CLXSIOCOUTQ), receiveQueue: try queued(fd, CLXSIOCINQ))
    }

    /// Puts a connection under repair: the kernel tells its state, and closing it sends nothing. The program must be
    /// stopped: its next send would fail.
    ///
    /// The send queue stays selected. As long as it is, no data that was not sent yet leaves (acknowledgements do), but
    /// the kernel takes it for sent as soon as a timer or an acknowledgement lets it go. It would be waited for at the
    /// destination for a whole second; so what is truly unsent is reckoned from the bytes counted here.
    public static func beginRepair(_ fd: Int32) throws(KernelError) -> Repair {
        let reuse = try get(fd, SOL_SOCKET, SO_REUSEADDR) != 0
        try set(fd, TCP_REPAIR, TCP_REPAIR_ON)
        let info = try info(fd)
        try set(fd, TCP_REPAIR_QUEUE, sendQueueNumber)
        return Repair(reuseAddress: reuse, unsent: info.unsent, sent: info.sent)
    }

    /// Gives a connection back to its program, for the way back on the source. What the kernel took for sent meanwhile
    /// is repeated after a timeout.
    public static func endRepair(_ fd: Int32, _ repair: Repair) throws(KernelError) {
        try set(fd, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)
        try set(fd, SOL_SOCKET, SO_REUSEADDR, repair.reuseAddress ? 1 : 0)
    }

    /// Closes a descriptor of a connection without a FIN or reset, should it be the last.
    public static func closeInRepair(_ fd: Int32) throws(KernelError) {
        try set(fd, TCP_REPAIR, TCP_REPAIR_ON)
        close(fd)
    }

    // ---- Calls ---------------------------------------------------------------------------------------------------

    static let noQueueNumber: Int32 = 0, receiveQueueNumber: Int32 = 1, sendQueueNumber: Int32 = 2
    /// include/uapi: newer than the C library, or not in Swift's Glibc.
    private static let IPPROTO_MPTCP: Int32 = 262, TCP_AO_INFO: Int32 = 40

    /// What is used of struct tcp_info.
    struct Info {
        var state: UInt8, options: UInt8, sendScale: UInt8, receiveScale: UInt8
        /// Of a listener: connections waiting, and the most that may wait.
        var unacknowledged: UInt32, sacked: UInt32
        /// Bytes a second.
        var pacingRate: UInt64
        /// Bytes not sent yet; bytes sent in the socket's life, each counted once.
        var unsent: UInt32, sent: UInt64
    }
    static func info(_ fd: Int32) throws(KernelError) -> Info {
        var result: Int32 = 0
        let info = withUnsafeTemporaryAllocation(byteCount: 216, alignment: 8) { raw in
            var size = UInt32(raw.count)
            result = clx_getsockopt(fd, Int32(IPPROTO_TCP), TCP_INFO, raw.baseAddress, &size)
            // SAFETY: every offset below lies in the 216 bytes; they are only used if the kernel filled them all.
            if result == 0 && size < raw.count { result = -EOPNOTSUPP }
            return Info(
                state: raw[0], options: raw[5], sendScale: raw[6] & 15, receiveScale: raw[6] >> 4,
                unacknowledged: raw.load(fromByteOffset: 24, as: UInt32.self),
                sacked: raw.load(fromByteOffset: 28, as: UInt32.self),
                pacingRate: raw.load(fromByteOffset: 104, as: UInt64.self),
                unsent: raw.load(fromByteOffset: 144, as: UInt32.self),
                sent: raw.load(fromByteOffset: 200, as: UInt64.self) &- raw.load(fromByteOffset: 208, as: UInt64.self))
        }
        try check(result, "reading TCP_INFO of descriptor \(fd)")
        return info
    }

    static func set(_ fd: Int32, _ name: Int32, _ value: Int32) throws(KernelError) {
        try set(fd, Int32(IPPROTO_TCP), name, value)
    }
    private static func queued(_ fd: Int32, _ request: UInt) throws(KernelError) -> UInt32 {
        var value: Int32 = 0
        try check(clx_ioctl(fd, request, &value), "reading queue sizes of descriptor \(fd)")
        return UInt32(bitPattern: value)
    }
    /// include/uapi/linux/sockios.h.
    private static let CLXSIOCINQ: UInt = 0x541b, CLXSIOCOUTQ: UInt = 0x5411
}

// What the kernel knows about a connection, and about a namespace's TCP as a whole.
import Glibc
import LinuxKernel

/// A part of struct tcp_info (include/uapi/linux/tcp.h), read at the kernel's offsets: Debian 12's header ends before
/// the last two, which Linux 6.7 added.
struct TCPInfo: Sendable {
    /// Consecutive timeouts of the segment in flight (tcpi_retransmits).
    let consecutiveTimeouts: UInt8
    /// Microseconds.
    let retransmissionTimeout: UInt32
    let roundTrip: UInt32
    /// Segments sent again, for any reason (fast retransmit, tail loss probe, timeout).
    let retransmitted: UInt32
    /// Retransmission timeouts since the connection began (tcpi_total_rto).
    let timeouts: UInt16

    init?(of socket: Int32) {
        var bytes = [UInt8](repeating: 0, count: 248)
        var size = socklen_t(bytes.count)
        guard getsockopt(socket, Int32(IPPROTO_TCP), TCP_INFO, &bytes, &size) == 0, size == 248 else { return nil }
        func load<T: FixedWidthInteger>(_ offset: Int, as: T.Type) -> T {
            bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: T.self) }
        }
        consecutiveTimeouts = bytes[2]
        retransmissionTimeout = load(8, as: UInt32.self)
        roundTrip = load(68, as: UInt32.self)
        retransmitted = load(100, as: UInt32.self)
        timeouts = load(240, as: UInt16.self)
    }
}

/// Counters of a network namespace's TCP.
public struct TCPCounters: Sendable, Codable {
    /// Retransmission timeouts (TCPTimeouts).
    public var timeouts = 0
    /// Tail loss probes (TCPLossProbes): sent two round trips after the last segment, cost a client nothing.
    public var lossProbes = 0
    public var fastRetransmits = 0
    /// Segments retransmitted for any reason.
    public var retransmitted = 0
    /// Resets received or sent on established connections.
    public var resets = 0

    /// Of the calling thread's namespace.
    static func here() throws -> TCPCounters {
        // /proc/net would be the process's main thread's namespace.
        var values: [String: Int] = [:]
        for file in ["netstat", "snmp"] {
            let lines = try SmallFile.text("/proc/thread-self/net/\(file)").split(separator: "\n")
            for (names, numbers) in zip(lines, lines.dropFirst()) where names.prefix(4) == numbers.prefix(4) {
                let prefix = names.prefix { $0 != ":" }
                for (name, number) in zip(names.split(separator: " "), numbers.split(separator: " ")).dropFirst() {
                    values["\(prefix).\(name)"] = Int(number)
                }
            }
        }
        return TCPCounters(
            timeouts: values["TcpExt.TCPTimeouts"] ?? 0, lossProbes: values["TcpExt.TCPLossProbes"] ?? 0,
            fastRetransmits: values["TcpExt.TCPFastRetrans"] ?? 0, retransmitted: values["Tcp.RetransSegs"] ?? 0,
            resets: values["Tcp.EstabResets"] ?? 0)
    }

    static func - (a: TCPCounters, b: TCPCounters) -> TCPCounters {
        TCPCounters(
            timeouts: a.timeouts - b.timeouts, lossProbes: a.lossProbes - b.lossProbes,
            fastRetransmits: a.fastRetransmits - b.fastRetransmits, retransmitted: a.retransmitted - b.retransmitted,
            resets: a.resets - b.resets)
    }
}

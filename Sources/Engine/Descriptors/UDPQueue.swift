// The datagrams that a UDP socket has received and its program has not read.
import CLinux
import Foundation
import LinuxKernel

extension UDPSocket {
    /// Reads the whole queue and leaves it as it is. The program is stopped, and nothing may arrive any more.
    ///
    /// With SO_PEEK_OFF each peek looks at the bytes that follow those of the one before. Nobody else may have set it.
    /// The kernel passes over an empty datagram that was peeked at before, but for the first in the queue.
    /// - Throws: `Uncarried` if a datagram has something that cannot be given back.
    public static func captureQueue(_ fd: Int32) throws -> DatagramQueue {
        var queue = DatagramQueue()
        if try memory(fd).queued == 0 { return queue }
        if poll(fd) & POLLERR != 0 { throw Uncarried(why: "UDP socket with an error pending") }
        var reader = Reader(fd)
        // The first is looked at without an offset: an empty one would be passed over if it was peeked at before.
        guard let first = try reader.next() else { return queue }
        if first.content.isEmpty { queue.datagrams.append(first) }
        try set(fd, SOL_SOCKET, SO_PEEK_OFF, 0)
        defer { try? set(fd, SOL_SOCKET, SO_PEEK_OFF, -1) }
        while let datagram = try reader.next() { queue.datagrams.append(datagram) }
        return queue
    }

    /// What a datagram has that is not carried; the handover is put off.
    public struct Uncarried: Error {
        public let why: String
    }

    /// After the death of an engine: ends what it began, in every UDP socket of a process. Others with SO_PEEK_OFF are
    /// not moved.
    public static func endPeeks(pid: Int32) throws {
        for socket in try sockets(of: pid, protocol: Int32(IPPROTO_UDP))
        where (try? get(socket.copy.number, SOL_SOCKET, SO_PEEK_OFF)) ?? -1 >= 0 {
            try set(socket.copy.number, SOL_SOCKET, SO_PEEK_OFF, -1)
        }
    }
}

/// Peeks at one datagram after the other.
private struct Reader {
    private let fd: Int32
    private var buffer = [UInt8](repeating: 0, count: 1 << 17), control = [UInt8](repeating: 0, count: 1 << 10)

    init(_ fd: Int32) { self.fd = fd }

    mutating func next() throws -> Datagram? {
        var name = sockaddr_storage(), nameSize = UInt32(MemoryLayout<sockaddr_storage>.size)
        var controlSize = control.count, flags: Int32 = 0
        let size = clx_recvmsg(
            fd, &name, &nameSize, &buffer, buffer.count, &control, &controlSize,
            Int32(MSG_PEEK) | Int32(MSG_DONTWAIT), &flags)
        if size == -Int(EAGAIN) { return nil }
        try check(size, "peeking at a datagram of descriptor \(fd)")
        if flags & Int32(MSG_TRUNC) | flags & Int32(MSG_CTRUNC) != 0 {
            throw UDPSocket.Uncarried(why: "UDP socket with a datagram larger than can be")
        }
        var datagram = Datagram()
        datagram.source = withUnsafeBytes(of: name) { Data($0.prefix(Int(nameSize))) }
        datagram.content = Data(buffer[..<size])
        try read(control[..<controlSize], &datagram)
        return datagram
    }

    /// struct cmsghdr: length of all, level, type; the next begins at a multiple of eight.
    private func read(_ control: ArraySlice<UInt8>, _ datagram: inout Datagram) throws {
        var rest = control
        while rest.count >= 16 {
            func word(_ offset: Int) -> Int32 {
                rest.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: Int32.self) }
            }
            let length = Int(word(0)), level = word(8), type = word(12)
            guard length >= 16, length <= rest.count else { break }
            try note(level, type, [UInt8](rest.dropFirst(16).prefix(length - 16)), &datagram)
            rest = rest.dropFirst(min(rest.count, (length + 7) & ~7))
        }
    }

    private func note(_ level: Int32, _ type: Int32, _ value: [UInt8], _ datagram: inout Datagram) throws {
        func word(_ offset: Int) -> UInt32 {
            value.count < offset + 4
                ? 0 : value.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self) }
        }
        switch (level, type) {
        case (Int32(IPPROTO_UDP), UDPSocket.UDP_GRO): datagram.segment = word(0)
        case (Int32(IPPROTO_IP), 1): datagram.trafficClass = UInt32(value.first ?? 0)  // IP_TOS
        case (Int32(IPPROTO_IP), 2): datagram.ttl = word(0)  // IP_TTL
        case (Int32(IPPROTO_IP), 8):  // IP_PKTINFO: interface, local address, address of the header
            datagram.destination = Data(value.suffix(4))
            datagram.overLoopback = word(0) == 1
        case (Int32(IPPROTO_IP), 20), (Int32(IPPROTO_IPV6), 74):  // IP_ORIGDSTADDR, IPV6_ORIGDSTADDR
            datagram.destination = Data(UDPAddress(Data(value)).host)
        case (Int32(IPPROTO_IPV6), 50):  // IPV6_PKTINFO: address, interface
            datagram.destination = Data(UDPAddress.plain([UInt8](value.prefix(16))))
            datagram.overLoopback = word(16) == 1
        case (Int32(IPPROTO_IPV6), 52): datagram.ttl = word(0)  // IPV6_HOPLIMIT
        case (Int32(IPPROTO_IPV6), 67): datagram.trafficClass = word(0)  // IPV6_TCLASS
        case (Int32(IPPROTO_IPV6), 11):  // IPV6_FLOWINFO, in network order
            datagram.flowLabel = UInt32(bigEndian: word(0)) & 0xfffff
        case (SOL_SOCKET, _), (Int32(IPPROTO_IP), 23), (Int32(IPPROTO_IP), 25), (Int32(IPPROTO_IPV6), 77):
            break  // times, counters, checksums, sizes of fragments: the destination's own
        default:
            throw UDPSocket.Uncarried(why: "UDP socket with a datagram that has control data \(level)/\(type)")
        }
    }
}

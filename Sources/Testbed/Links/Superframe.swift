// A frame as a TAP interface gives it: up to 64 KiB of a TCP stream, which a real link would carry as many frames.
//
// The link treats each of those by itself (loss, reordering, rate), yet passes neighbours of one fate as one frame
// again: so a run of segments is cut out of the large frame, with headers as if the sender had sent it so.
import Glibc

/// A frame with its virtio_net_hdr, in memory that belongs to someone else.
struct Superframe {
    let base: UnsafeMutableRawPointer
    /// With the virtio_net_hdr.
    let length: Int
    /// Bytes of headers that every segment carries (Ethernet, IP, TCP); 0: the frame is one segment.
    let headers: Int
    /// Payload of a segment.
    let segmentSize: Int
    let segments: Int
    private let network: Int
    private let transport: Int

    init(_ base: UnsafeMutableRawPointer, _ length: Int) {
        (self.base, self.length) = (base, length)
        let found = Self.layout(base, length - TAP.header)
        (network, transport, headers, segmentSize) = (found.network, found.transport, found.headers, found.segmentSize)
        let payload = length - TAP.header - headers
        segments = segmentSize == 0 ? 1 : max(1, (payload + segmentSize - 1) / segmentSize)
    }

    /// Where the headers of a large TCP frame are; all 0 for any other frame.
    private static func layout(_ base: UnsafeMutableRawPointer, _ size: Int)
        -> (network: Int, transport: Int, headers: Int, segmentSize: Int)
    {
        let none = (0, 0, 0, 0)
        let kind = base.load(fromByteOffset: 1, as: UInt8.self)
        guard kind == GSO_TCPV4 || kind == GSO_TCPV6 else { return none }
        let size16 = { Int(base.loadUnaligned(fromByteOffset: $0, as: UInt16.self)) }
        let (segmentSize, transport) = (size16(4), size16(6))
        guard segmentSize > 0, transport >= 34, size >= transport + 20 else { return none }
        let frame = base + TAP.header
        var network = 14
        // A VLAN's tag is 4 bytes more.
        if frame.bigEndian(12) == 0x8100 { network = 18 }
        guard frame.bigEndian(network - 2) == (kind == GSO_TCPV4 ? 0x0800 : 0x86dd),
            transport >= network + (kind == GSO_TCPV4 ? 20 : 40)
        else { return none }
        let headers = transport + Int(frame.load(fromByteOffset: transport + 12, as: UInt8.self) >> 4) * 4
        guard headers >= transport + 20, headers <= Self.mostHeaders, size > headers else { return none }
        return (network, transport, headers, segmentSize)
    }

    /// Room that `write` needs for headers.
    static let mostHeaders = 256

    private func payload(_ first: Int, _ count: Int) -> (offset: Int, size: Int) {
        let offset = first * segmentSize
        return (offset, min(count * segmentSize, length - TAP.header - headers - offset))
    }

    /// What a run of segments takes on the wire, with its headers.
    func wireBytes(_ first: Int, _ count: Int) -> Int {
        if segmentSize == 0 { return length - TAP.header }
        return count * headers + payload(first, count).size
    }

    /// Writes a run of segments as one frame.
    ///
    /// - Parameter scratch: room for `TAP.header + mostHeaders` bytes.
    /// - Returns: what writev(2) says.
    func write(_ first: Int, _ count: Int, to descriptor: Int32, scratch: UnsafeMutableRawPointer) -> Int {
        if count == segments { return Glibc.write(descriptor, base, length) }
        let part = payload(first, count)
        scratch.copyMemory(from: base, byteCount: TAP.header + headers)
        if part.size <= segmentSize {
            // One segment is an ordinary frame, its checksum still to be filled in.
            scratch.storeBytes(of: 0, toByteOffset: 1, as: UInt8.self)
            scratch.storeBytes(of: 0, toByteOffset: 4, as: UInt16.self)
        }
        let frame = scratch + TAP.header
        if frame.load(fromByteOffset: network, as: UInt8.self) >> 4 == 4 {
            frame.setBigEndian(network + 2, headers - network + part.size)
            frame.setBigEndian(network + 4, frame.bigEndian(network + 4) &+ first)
            frame.setBigEndian(network + 10, 0)
            let words = Int(frame.load(fromByteOffset: network, as: UInt8.self) & 15) * 2
            frame.setBigEndian(
                network + 10, ~Self.sum((0..<words).reduce(0) { $0 + frame.bigEndian(network + 2 * $1) }))
        } else {
            frame.setBigEndian(network + 4, headers - network - 40 + part.size)
        }
        let sequence = UInt32(bigEndian: frame.loadUnaligned(fromByteOffset: transport + 4, as: UInt32.self))
        frame.storeBytes(of: (sequence &+ UInt32(part.offset)).bigEndian, toByteOffset: transport + 4, as: UInt32.self)
        var flags = frame.load(fromByteOffset: transport + 13, as: UInt8.self)
        if first > 0 { flags &= ~TCP_CWR }
        if first + count < segments { flags &= ~(TCP_FIN | TCP_PSH) }
        frame.storeBytes(of: flags, toByteOffset: transport + 13, as: UInt8.self)
        // The checksum's field holds the sum over the pseudo-header, the length among it; the receiver does the rest.
        let (old, new) = (length - TAP.header - transport, headers - transport + part.size)
        frame.setBigEndian(transport + 16, Self.sum(frame.bigEndian(transport + 16) + new + (~old & 0xffff)))
        return withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { parts in
            parts[0] = iovec(iov_base: scratch, iov_len: TAP.header + headers)
            parts[1] = iovec(iov_base: base + TAP.header + headers + part.offset, iov_len: part.size)
            return writev(descriptor, parts.baseAddress, 2)
        }
    }

    /// A sum in ones' complement, 16 bits.
    private static func sum(_ value: Int) -> Int {
        var value = value
        while value > 0xffff { value = (value & 0xffff) + (value >> 16) }
        return value
    }
}

extension UnsafeMutableRawPointer {
    /// 16 bits in network order.
    fileprivate func bigEndian(_ offset: Int) -> Int {
        Int(UInt16(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt16.self)))
    }
    fileprivate func setBigEndian(_ offset: Int, _ value: Int) {
        storeBytes(of: UInt16(truncatingIfNeeded: value).bigEndian, toByteOffset: offset, as: UInt16.self)
    }
}

// include/uapi/linux/virtio_net.h, RFC 9293.
private let GSO_TCPV4: UInt8 = 1
private let GSO_TCPV6: UInt8 = 4
private let TCP_FIN: UInt8 = 1
private let TCP_PSH: UInt8 = 8
private let TCP_CWR: UInt8 = 128

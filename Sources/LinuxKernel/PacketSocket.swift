// Whole frames sent by hand: to burn a token bucket, to start its queue, to announce an address.
import CLinux
import Glibc

/// A socket that sends frames out of one interface and receives nothing (packet(7)).
public final class PacketSocket: Sendable {
    private let descriptor: FileDescriptor

    /// Opens it on an interface of the calling thread's namespace.
    ///
    /// - Parameter bypassingQueue: what it sends goes past the interface's queue.
    public init(on link: Int32, bypassingQueue: Bool = false) throws(KernelError) {
        let number = bypassingQueue ? clx_packet_open_bypassing(link) : clx_packet_open(link)
        descriptor = FileDescriptor(owning: try check(number, "opening a packet socket"))
    }
    /// Opens it on an interface of another namespace.
    public convenience init(on link: Int32, in namespace: NetworkNamespace) throws(KernelError) {
        self.init(
            owning: try namespace.run { () throws(KernelError) in
                try check(clx_packet_open(link), "opening a packet socket")
            })
    }
    private init(owning number: Int32) { descriptor = FileDescriptor(owning: number) }

    /// Sends one frame, header included.
    public func send(_ frame: [UInt8]) throws(KernelError) {
        try check(clx_send(descriptor.number, frame, frame.count, 0), "sending a frame")
    }
}

/// Frames made of bytes.
public enum Frame {
    /// A frame nobody takes, of the type for local experiments (IEEE 802, 0x88b5).
    public static func dummy(size: Int = 60) -> [UInt8] {
        var frame = MACAddress.bogus.bytes + [2, 0, 0xde, 0xad, 0, 1, 0x88, 0xb5]
        frame += [UInt8](repeating: 0, count: max(0, size - frame.count))
        return frame
    }

    /// The announcement that `address` is at `mac`: a gratuitous ARP request (RFC 5227, as arping -U) or an
    /// unsolicited neighbour advertisement with the override flag (RFC 4861).
    public static func announcement(_ address: IPAddress, at mac: MACAddress) -> [UInt8] {
        if !address.isIPv6 {
            var frame = MACAddress.broadcast.bytes + mac.bytes + [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]
            frame += mac.bytes + address.bytes + [0, 0, 0, 0, 0, 0] + address.bytes
            return frame + [UInt8](repeating: 0, count: 60 - frame.count)
        }
        let allNodes: [UInt8] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        var icmp: [UInt8] = [136, 0, 0, 0, 0x20, 0, 0, 0] + address.bytes + [2, 1] + mac.bytes
        let pseudo = address.bytes + allNodes + [0, 0, 0, UInt8(icmp.count), 0, 0, 0, 58]
        let sum = checksum(pseudo + icmp)
        icmp[2] = UInt8(sum >> 8)
        icmp[3] = UInt8(sum & 0xff)
        let header: [UInt8] = [0x60, 0, 0, 0, 0, UInt8(icmp.count), 58, 255]
        return [0x33, 0x33, 0, 0, 0, 1] + mac.bytes + [0x86, 0xdd] + header + address.bytes + allNodes + icmp
    }

    /// The Internet checksum (RFC 1071) of bytes in network order.
    public static func checksum(_ bytes: [UInt8]) -> UInt16 {
        var sum: UInt32 = 0
        for index in stride(from: 0, to: bytes.count, by: 2) {
            sum += UInt32(bytes[index]) << 8 | (index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0)
        }
        while sum >> 16 != 0 { sum = (sum & 0xffff) + (sum >> 16) }
        return ~UInt16(sum)
    }
}

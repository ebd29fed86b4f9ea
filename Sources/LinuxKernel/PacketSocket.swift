// Whole frames sent by hand: to burn a token bucket, to start its queue, to announce an address, to ask whose it is.
import CLinux
import Glibc

/// A socket that sends frames out of one interface (packet(7)). It receives nothing unless it is made to.
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
    /// Opens one that receives all frames of an interface of another namespace, too.
    public convenience init(receivingOn link: Int32, in namespace: NetworkNamespace) throws(KernelError) {
        self.init(
            owning: try namespace.run { () throws(KernelError) in
                try check(clx_packet_open_receiving(link), "opening a packet socket")
            })
    }
    private init(owning number: Int32) { descriptor = FileDescriptor(owning: number) }

    /// Sends one frame, header included.
    public func send(_ frame: [UInt8]) throws(KernelError) {
        try check(clx_send(descriptor.number, frame, frame.count, 0), "sending a frame")
    }

    /// The next frame that came, or goes out by another's hand; nil: none in this time.
    public func receive(milliseconds: Int32) throws(KernelError) -> [UInt8]? {
        var request = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
        guard poll(&request, 1, milliseconds) > 0 else { return nil }
        var frame = [UInt8](repeating: 0, count: 2048)
        let count = clx_recv(descriptor.number, &frame, frame.count, 0)
        if count == -Int(EAGAIN) { return nil }
        frame.removeSubrange(try check(count, "receiving a frame")...)
        return frame
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
        return neighbourDiscovery(
            [136, 0, 0, 0, 0x20, 0, 0, 0] + address.bytes + [2, 1] + mac.bytes, from: address.bytes,
            to: [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], at: mac)
    }

    /// The question whether anybody has `address`, by one who does not yet: an ARP probe (RFC 5227), or a neighbour
    /// solicitation without a sender (RFC 4862).
    public static func probe(_ address: IPAddress, by mac: MACAddress) -> [UInt8] {
        if !address.isIPv6 {
            var frame = MACAddress.broadcast.bytes + mac.bytes + [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]
            frame += mac.bytes + [0, 0, 0, 0] + [0, 0, 0, 0, 0, 0] + address.bytes
            return frame + [UInt8](repeating: 0, count: 60 - frame.count)
        }
        return neighbourDiscovery(
            [135, 0, 0, 0, 0, 0, 0, 0] + address.bytes, from: [UInt8](repeating: 0, count: 16),
            to: [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff] + address.bytes[13...], at: mac)
    }

    /// Who says with this frame that `address` is its own, or is about to take it, too.
    public static func claimant(of address: IPAddress, in frame: [UInt8]) -> MACAddress? {
        guard frame.count >= 42 else { return nil }
        let sender = MACAddress(frame[6..<12])
        switch (address.isIPv6, frame[12], frame[13]) {
        case (false, 0x08, 0x06):
            let isProbe = frame[28..<32].allSatisfy { $0 == 0 } && frame[38..<42].elementsEqual(address.bytes)
            return frame[28..<32].elementsEqual(address.bytes) || isProbe ? sender : nil
        case (true, 0x86, 0xdd) where frame.count >= 78 && frame[20] == 58:
            let isProbe = frame[54] == 135 && frame[22..<38].allSatisfy { $0 == 0 }
            return (frame[54] == 136 || isProbe) && frame[62..<78].elementsEqual(address.bytes) ? sender : nil
        default: return nil
        }
    }

    /// An ICMPv6 message of neighbour discovery to a multicast address, its checksum filled in.
    private static func neighbourDiscovery(
        _ message: [UInt8], from source: [UInt8], to group: [UInt8], at mac: MACAddress
    ) -> [UInt8] {
        var message = message
        let pseudo = source + group + [0, 0, 0, UInt8(message.count), 0, 0, 0, 58]
        let sum = checksum(pseudo + message)
        (message[2], message[3]) = (UInt8(sum >> 8), UInt8(sum & 0xff))
        let header: [UInt8] = [0x60, 0, 0, 0, 0, UInt8(message.count), 58, 255]
        return [0x33, 0x33] + group[12...] + mac.bytes + [0x86, 0xdd] + header + source + group + message
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

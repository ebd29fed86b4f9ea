// Puts datagrams back into the queue of a restored UDP socket: as packets that come in from where they came before.
//
// Those from outside are sent into the container from the host's end of its veth pair, past the plug that holds what
// the network sends meanwhile. Those of the container itself go over its loopback.
import CLinux
import Foundation
import LinuxKernel

/// A container's network, seen from its host. Opened before the freeze.
public final class UDPInjector: Sendable {
    private let port: PacketSocket
    private let loopback: RawSockets
    private let mac: MACAddress
    private let mtu: Int
    private let addresses: [IPAddress]

    /// - Parameters:
    ///   - port: index of the host's end of the container's veth pair, in the calling thread's namespace.
    ///   - mac, mtu, addresses: of the container's end.
    public init(port: Int32, namespace: NetworkNamespace, mac: MACAddress, mtu: Int, addresses: [IPAddress])
        throws(KernelError)
    {
        self.port = try PacketSocket(on: port, bypassingQueue: true)
        loopback = try RawSockets(in: namespace)
        (self.mac, self.mtu, self.addresses) = (mac, mtu, addresses)
    }

    /// Sends a datagram again and waits until the socket has it, so that the next one comes after it.
    func deliver(_ datagram: Datagram, to fd: Int32, _ image: UDPEndpoint) throws(KernelError) {
        let source = UDPAddress(datagram.source), local = UDPAddress(image.local)
        let isLocal =
            datagram.overLoopback || source.host.first == 127 && source.host.count == 4
            || addresses.contains { $0.bytes == source.host } || source.host == Self.loopback6
        let destination = destination(datagram, source, local, isLocal)
        guard source.host.count == destination.count, !destination.isEmpty, local.port != 0 else {
            throw KernelError("restoring a datagram: not between two addresses of a family", .invalid)
        }
        let whole = [UInt8](datagram.content)
        let size = datagram.segment == 0 || whole.isEmpty ? max(whole.count, 1) : Int(datagram.segment)
        for start in stride(from: 0, to: max(whole.count, 1), by: size) {
            let content = whole[start..<min(whole.count, start + size)]
            let before = try UDPSocket.memory(fd).queued
            let packet = UDPPacket(
                source: source.host, destination: destination,
                datagram: Self.datagram(source, destination, local.port, content),
                ttl: UInt8(clamping: datagram.hasTtl ? datagram.ttl : 255),
                trafficClass: UInt8(clamping: datagram.trafficClass), flowLabel: datagram.flowLabel)
            if isLocal {
                for bytes in packet.fragments(mtu: 65536) { try loopback.send(bytes, to: destination) }
            } else {
                let type: [UInt8] = destination.count == 4 ? [0x08, 0x00] : [0x86, 0xdd]
                for bytes in packet.fragments(mtu: mtu) {
                    try port.send(mac.bytes + MACAddress.bogus.bytes + type + bytes)
                }
            }
            try waitUntilTaken(fd, before)
        }
    }

    /// Where the program has not asked for the address that a datagram was sent to, one that leads to it.
    private func destination(_ datagram: Datagram, _ source: UDPAddress, _ local: UDPAddress, _ isLocal: Bool)
        -> [UInt8]
    {
        if datagram.hasDestination { return [UInt8](datagram.destination) }
        if local.host.count == source.host.count, local.host.contains(where: { $0 != 0 }) { return local.host }
        if isLocal { return source.host }
        return addresses.first { $0.bytes.count == source.host.count }?.bytes ?? []
    }
    private static let loopback6: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]

    /// Header and content, with the checksum over the pseudo header.
    private static func datagram(
        _ source: UDPAddress, _ destination: [UInt8], _ port: UInt16, _ content: ArraySlice<UInt8>
    ) -> [UInt8] {
        let length = 8 + content.count
        var bytes = big(source.port) + big(port) + big(UInt16(truncatingIfNeeded: length)) + [0, 0] + content
        let sum = Frame.checksum(source.host + destination + [0, 0, 0, 17] + big(UInt32(length)) + bytes)
        bytes.replaceSubrange(6..<8, with: big(sum == 0 ? 0xffff : sum))
        return bytes
    }

    /// The softirq has run when the sending returns, unless it was put off to its thread.
    private func waitUntilTaken(_ fd: Int32, _ before: UInt32) throws(KernelError) {
        for _ in 0..<2000 {
            if try UDPSocket.memory(fd).queued > before { return }
            usleep(50)
        }
        throw KernelError("restoring the queue of descriptor \(fd): a datagram was not taken", .timedOut)
    }
}

/// A UDP datagram with what its IP header says.
struct UDPPacket {
    let source, destination, datagram: [UInt8]
    let ttl, trafficClass: UInt8
    /// IPv6 only.
    let flowLabel: UInt32

    /// The packet, or its fragments where it is larger than `mtu`.
    func fragments(mtu: Int) -> [[UInt8]] {
        let isIPv6 = source.count == 16, header = isIPv6 ? 40 : 20
        // An IPv4 packet of the largest size has 65,535 bytes.
        if header + datagram.count <= min(mtu, isIPv6 ? 65575 : 65535) {
            return [isIPv6 ? packet6(17, datagram[...]) : packet4(0, 0, datagram[...])]
        }
        let identity = UInt32.random(in: 1...UInt32.max)
        // Every piece but the last is a multiple of eight bytes.
        let room = (mtu - header - (isIPv6 ? 8 : 0)) & ~7
        return stride(from: 0, to: datagram.count, by: room).map { offset in
            let piece = datagram[offset..<min(datagram.count, offset + room)]
            let more = piece.endIndex < datagram.count
            if isIPv6 {
                let fragment = [17, 0] + big(UInt16(offset) | (more ? 1 : 0)) + big(identity)
                return packet6(44, fragment + piece)
            }
            return packet4(UInt16(truncatingIfNeeded: identity), UInt16(offset / 8) | (more ? 0x2000 : 0), piece)
        }
    }

    private func packet4(_ identity: UInt16, _ fragment: UInt16, _ content: ArraySlice<UInt8>) -> [UInt8] {
        var header = [0x45, trafficClass] + big(UInt16(20 + content.count)) + big(identity) + big(fragment)
        header += [ttl, 17, 0, 0] + source + destination
        header.replaceSubrange(10..<12, with: big(Frame.checksum(header)))
        return header + content
    }
    private func packet6(_ next: UInt8, _ content: some Collection<UInt8>) -> [UInt8] {
        let first = 6 << 28 | UInt32(trafficClass) << 20 | flowLabel & 0xfffff
        return big(first) + big(UInt16(content.count)) + [next, ttl] + source + destination + content
    }
}

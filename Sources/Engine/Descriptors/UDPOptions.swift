// The options that UDP sockets have besides those of all sockets.
import Foundation
import LinuxKernel

extension UDPSocket {
    // include/uapi/linux: udp.h, in.h, in6.h, asm/socket.h; newer than the C library, or not in Swift's Glibc.
    private static let udpLevel = Int32(IPPROTO_UDP), ip = Int32(IPPROTO_IP), ip6 = Int32(IPPROTO_IPV6)
    static let UDP_CORK: Int32 = 1, UDP_ENCAP: Int32 = 100, UDP_GRO: Int32 = 104

    private static let own: [SocketOption] =
        [
            SocketOption(SOL_SOCKET, SO_KEEPALIVE, skipZero: true),
            SocketOption(ip, 32 /* IP_MULTICAST_IF */, skipZero: true), SocketOption(ip, 33 /* IP_MULTICAST_TTL */),
        ]
        + [
            UDP_CORK, 101 /* UDP_NO_CHECK6_TX */, 102 /* UDP_NO_CHECK6_RX */, 103 /* UDP_SEGMENT */, UDP_GRO,
        ].map { SocketOption(udpLevel, $0, skipZero: true) }
    private static let own6: [SocketOption] = [SocketOption(ip6, 18 /* IPV6_MULTICAST_HOPS */)]

    private static let table = SocketOptionTable(SocketOption.common + own)
    private static let table6 = SocketOptionTable(table.options + SocketOption.common6 + own6)

    /// An interface chosen by its index, which is another one at another host.
    static func chosenInterface(_ fd: Int32, family: Int32) -> String? {
        if (try? get(fd, ip, 50)) ?? 0 != 0 { return "IP_UNICAST_IF" }
        if family != AF_INET6 { return nil }
        if (try? get(fd, ip6, 76)) ?? 0 != 0 { return "IPV6_UNICAST_IF" }
        return (try? get(fd, ip6, 17)) ?? 0 != 0 ? "IPV6_MULTICAST_IF" : nil
    }

    static func captureOptions(_ fd: Int32, family: Int32) throws(KernelError) -> SocketOptions {
        try captureOptions(fd, family == AF_INET6 ? table6 : table)
    }
    static func restoreOptions(_ fd: Int32, _ image: SocketOptions, _ moment: SocketOption.Moment)
        throws(KernelError)
    {
        try restoreOptions(fd, image, table6, moment)
    }
}

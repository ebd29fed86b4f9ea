// The options that UDP sockets have besides those of all sockets.
import Foundation
import LinuxKernel

extension UDPSocket {
    // include/uapi/linux: udp.h, in.h, in6.h, asm/socket.h; newer than the C library, or not in Swift's Glibc.
    private static let udpLevel = Int32(IPPROTO_UDP), ip = Int32(IPPROTO_IP), ip6 = Int32(IPPROTO_IPV6)
    static let UDP_CORK: Int32 = 1, UDP_ENCAP: Int32 = 100, UDP_GRO: Int32 = 104

    private static let own: [SocketOption] =
        [
            SO_BROADCAST, 11 /* SO_NO_CHECK */, 34 /* SO_PASSSEC */, 40 /* SO_RXQ_OVFL */, 41 /* SO_WIFI_STATUS */,
            43 /* SO_NOFCS */, 45 /* SO_SELECT_ERR_QUEUE */, 61 /* SO_TXTIME */, 69 /* SO_PREFER_BUSY_POLL */,
            70 /* SO_BUSY_POLL_BUDGET */, 75 /* SO_RCVMARK */, 82 /* SO_RCVPRIORITY */,
        ].map { SocketOption(SOL_SOCKET, $0, skipZero: true) }
        + [
            6 /* IP_RECVOPTS */, 7 /* IP_RETOPTS */, 8 /* IP_PKTINFO */, 12 /* IP_RECVTTL */, 13 /* IP_RECVTOS */,
            18 /* IP_PASSSEC */, 20 /* IP_RECVORIGDSTADDR */, 23 /* IP_CHECKSUM */, 25 /* IP_RECVFRAGSIZE */,
            26 /* IP_RECVERR_RFC4884 */, 32 /* IP_MULTICAST_IF */, 51, /* IP_LOCAL_PORT_RANGE */
        ].map { SocketOption(ip, $0, skipZero: true) }
        + [33 /* IP_MULTICAST_TTL */, 34 /* IP_MULTICAST_LOOP */, 49 /* IP_MULTICAST_ALL */].map {
            SocketOption(ip, $0)
        }
        + [
            UDP_CORK, 101 /* UDP_NO_CHECK6_TX */, 102 /* UDP_NO_CHECK6_RX */, 103 /* UDP_SEGMENT */, UDP_GRO,
        ].map { SocketOption(udpLevel, $0, skipZero: true) }

    private static let own6: [SocketOption] =
        [75 /* IPV6_TRANSPARENT */, 78 /* IPV6_FREEBIND */].map { SocketOption(ip6, $0, .beforeBind, skipZero: true) }
        + [
            11 /* IPV6_FLOWINFO */, 31 /* IPV6_RECVERR_RFC4884 */, 33 /* IPV6_FLOWINFO_SEND */,
            49 /* IPV6_RECVPKTINFO */, 51 /* IPV6_RECVHOPLIMIT */, 53 /* IPV6_RECVHOPOPTS */, 56 /* IPV6_RECVRTHDR */,
            58 /* IPV6_RECVDSTOPTS */, 60 /* IPV6_RECVPATHMTU */, 62 /* IPV6_DONTFRAG */, 66 /* IPV6_RECVTCLASS */,
            73 /* IPV6_MINHOPCOUNT */, 74 /* IPV6_RECVORIGDSTADDR */, 77, /* IPV6_RECVFRAGSIZE */
        ].map { SocketOption(ip6, $0, skipZero: true) }
        + [
            18 /* IPV6_MULTICAST_HOPS */, 19 /* IPV6_MULTICAST_LOOP */, 29 /* IPV6_MULTICAST_ALL */,
            70 /* IPV6_AUTOFLOWLABEL */, 72, /* IPV6_ADDR_PREFERENCES */
        ].map { SocketOption(ip6, $0) }

    private static let table = SocketOption.common + own
    private static let table6 = table + SocketOption.common6 + own6

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

// The options of sockets that are carried: read as bytes, and set again as the same bytes, in the order of these
// tables.
import CLinux
import Foundation
import LinuxKernel

/// One line of a table of options.
struct SocketOption: Sendable {
    /// When it is set: some count only before bind(2), the rest when the address is there.
    enum Moment: Sendable { case beforeBind, afterConnect }
    let level: Int32
    let name: Int32
    let moment: Moment
    /// Kinds of socket that have it.
    var listenerOnly = false
    /// An empty or all-zero value is not set again: it is the default and setting it means something else, or fails.
    var skipZero = false
    /// This value is not set again: the kernel shows it where nothing was set, and does not take it, or takes it for
    /// more.
    var usual: Int32?

    init(
        _ level: Int32, _ name: Int32, _ moment: Moment = .afterConnect, listenerOnly: Bool = false,
        skipZero: Bool = false, usual: Int32? = nil
    ) {
        self.level = level
        self.name = name
        self.moment = moment
        self.listenerOnly = listenerOnly
        self.skipZero = skipZero
        self.usual = usual
    }

    private static let ip = Int32(IPPROTO_IP), ip6 = Int32(IPPROTO_IPV6)

    /// Of both protocols, in the order of the kernel's getsockopt(2) where nothing speaks against it. Not in here
    /// because they have a place of their own: buffer sizes and their lock, SO_REUSEADDR, SO_REUSEPORT. Not carried
    /// because the kernel steers it itself: SO_INCOMING_CPU. Refused, see `uncarriedOption`: SO_RESERVE_MEM.
    static let common: [SocketOption] =
        [
            SocketOption(SOL_SOCKET, SO_BINDTODEVICE, .beforeBind, skipZero: true),
            SocketOption(SOL_SOCKET, SO_MARK, .beforeBind),
            SocketOption(ip, IP_FREEBIND, .beforeBind),
            SocketOption(ip, IP_TRANSPARENT, .beforeBind),
            SocketOption(ip, IP_BIND_ADDRESS_NO_PORT, .beforeBind),
            SocketOption(ip, 51 /* IP_LOCAL_PORT_RANGE */, .beforeBind, skipZero: true),
            SocketOption(ip, IP_TOS), SocketOption(SOL_SOCKET, SO_PRIORITY),  // after IP_TOS, which sets it too
            SocketOption(ip, IP_TTL), SocketOption(ip, IP_MTU_DISCOVER), SocketOption(ip, IP_RECVERR),
            SocketOption(ip, IP_MINTTL), SocketOption(ip, 34 /* IP_MULTICAST_LOOP */),
            SocketOption(ip, 49 /* IP_MULTICAST_ALL */),
            SocketOption(SOL_SOCKET, SO_LINGER), SocketOption(SOL_SOCKET, SO_OOBINLINE),
            SocketOption(SOL_SOCKET, SO_DONTROUTE),
            SocketOption(SOL_SOCKET, SO_RCVTIMEO), SocketOption(SOL_SOCKET, SO_SNDTIMEO),
            SocketOption(SOL_SOCKET, SO_RCVLOWAT),
            SocketOption(SOL_SOCKET, SO_MAX_PACING_RATE),
        ]
        + [
            SO_DEBUG, SO_BROADCAST, 11 /* SO_NO_CHECK */, 16 /* SO_PASSCRED */, SO_TIMESTAMP, 34 /* SO_PASSSEC */,
            SO_TIMESTAMPNS, SO_TIMESTAMPING, 40 /* SO_RXQ_OVFL */, 41 /* SO_WIFI_STATUS */, 43 /* SO_NOFCS */,
            44 /* SO_LOCK_FILTER */, 45 /* SO_SELECT_ERR_QUEUE */, SO_BUSY_POLL, SO_ZEROCOPY, 61 /* SO_TXTIME */,
            63 /* SO_TIMESTAMP_NEW */, 64 /* SO_TIMESTAMPNS_NEW */, 65 /* SO_TIMESTAMPING_NEW */,
            69 /* SO_PREFER_BUSY_POLL */, 70 /* SO_BUSY_POLL_BUDGET */, 75 /* SO_RCVMARK */, 82 /* SO_RCVPRIORITY */,
        ].map { SocketOption(SOL_SOCKET, $0, skipZero: true) }
        + [
            6 /* IP_RECVOPTS */, 7 /* IP_RETOPTS */, 8 /* IP_PKTINFO */, 12 /* IP_RECVTTL */, 13 /* IP_RECVTOS */,
            18 /* IP_PASSSEC */, 20 /* IP_RECVORIGDSTADDR */, 23 /* IP_CHECKSUM */, 25 /* IP_RECVFRAGSIZE */,
            26, /* IP_RECVERR_RFC4884 */
        ].map { SocketOption(ip, $0, skipZero: true) }
    /// Of both protocols, IPv6.
    static let common6: [SocketOption] =
        [
            SocketOption(ip6, IPV6_V6ONLY, .beforeBind),
            SocketOption(ip6, 75 /* IPV6_TRANSPARENT */, .beforeBind, skipZero: true),
            SocketOption(ip6, 78 /* IPV6_FREEBIND */, .beforeBind, skipZero: true),
            SocketOption(ip6, IPV6_UNICAST_HOPS),
            SocketOption(ip6, IPV6_TCLASS), SocketOption(ip6, IPV6_MTU_DISCOVER), SocketOption(ip6, IPV6_RECVERR),
            SocketOption(ip6, 19 /* IPV6_MULTICAST_LOOP */), SocketOption(ip6, 29 /* IPV6_MULTICAST_ALL */),
            SocketOption(ip6, 70 /* IPV6_AUTOFLOWLABEL */), SocketOption(ip6, 72 /* IPV6_ADDR_PREFERENCES */),
        ]
        + [
            11 /* IPV6_FLOWINFO */, 31 /* IPV6_RECVERR_RFC4884 */, 33 /* IPV6_FLOWINFO_SEND */,
            49 /* IPV6_RECVPKTINFO */, 51 /* IPV6_RECVHOPLIMIT */, 53 /* IPV6_RECVHOPOPTS */, 56 /* IPV6_RECVRTHDR */,
            58 /* IPV6_RECVDSTOPTS */, 60 /* IPV6_RECVPATHMTU */, 62 /* IPV6_DONTFRAG */, 66 /* IPV6_RECVTCLASS */,
            73 /* IPV6_MINHOPCOUNT */, 74 /* IPV6_RECVORIGDSTADDR */, 77, /* IPV6_RECVFRAGSIZE */
        ].map { SocketOption(ip6, $0, skipZero: true) }
}

/// The options that one kind of socket has, in the order in which they are set.
struct SocketOptionTable: Sendable {
    let options: [SocketOption]
    private let places: [UInt64: Int]

    init(_ options: [SocketOption]) {
        self.options = options
        places = Dictionary(options.indices.map { (Self.key(options[$0].level, options[$0].name), $0) }) { first, _ in
            first
        }
    }
    func option(_ level: Int32, _ name: Int32) -> SocketOption? { places[Self.key(level, name)].map { options[$0] } }

    private static func key(_ level: Int32, _ name: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: level)) << 32 | UInt64(UInt32(bitPattern: name))
    }
}

extension InetSocket {
    /// Reads the options of a socket. `reuseAddress`: SO_REUSEADDR, where it is not what the kernel tells now.
    static func captureOptions(
        _ fd: Int32, _ table: SocketOptionTable, listener: Bool = false, reuseAddress: Bool? = nil
    ) throws(KernelError) -> SocketOptions {
        var image = SocketOptions()
        image.reuseAddress =
            if let reuseAddress { reuseAddress } else { try get(fd, SOL_SOCKET, SO_REUSEADDR) != 0 }
        image.reusePort = try get(fd, SOL_SOCKET, SO_REUSEPORT) != 0
        image.sendBuffer = UInt32(bitPattern: try get(fd, SOL_SOCKET, SO_SNDBUF))
        image.receiveBuffer = UInt32(bitPattern: try get(fd, SOL_SOCKET, SO_RCVBUF))
        image.bufferLock = UInt32(bitPattern: try get(fd, SOL_SOCKET, SO_BUF_LOCK))
        image.options.reserveCapacity(table.options.count)
        for option in table.options where listener || !option.listenerOnly { try append(fd, option, to: &image) }
        return image
    }
    private static func append(_ fd: Int32, _ option: SocketOption, to image: inout SocketOptions)
        throws(KernelError)
    {
        var value: (UInt64, UInt64) = (0, 0), size = UInt32(16)
        let result = clx_getsockopt(fd, option.level, option.name, &value, &size)
        if result == -ENOPROTOOPT || result == -EOPNOTSUPP { return }  // this kernel has none: nobody can have set it
        try check(result, "reading option \(option.level)/\(option.name) of descriptor \(fd)")
        if option.skipZero && (size == 0 || value == (0, 0)) { return }
        if let usual = option.usual, size == 4, UInt32(truncatingIfNeeded: value.0) == UInt32(bitPattern: usual) {
            return
        }
        var line = SocketOptions.Option()
        line.level = option.level
        line.name = option.name
        line.value = withUnsafeBytes(of: value) { Data($0.prefix(Int(size))) }
        image.options.append(line)
    }

    /// Sets the captured options of one moment. Only what the table names is set, whatever the image holds.
    static func restoreOptions(
        _ fd: Int32, _ image: SocketOptions, _ table: SocketOptionTable, _ moment: SocketOption.Moment
    ) throws(KernelError) {
        for line in image.options {
            guard let option = table.option(line.level, line.name) else {
                throw KernelError("restoring socket option \(line.level)/\(line.name): not in the table", .invalid)
            }
            guard option.moment == moment else { continue }
            let result = line.value.withUnsafeBytes {
                clx_setsockopt(fd, line.level, line.name, $0.baseAddress, UInt32($0.count))
            }
            try check(result, "restoring socket option \(line.level)/\(line.name) of descriptor \(fd)")
        }
    }

    /// Forces the buffers to at least the captured sizes; the kernel doubles what it is given.
    static func forceBuffers(_ fd: Int32, receive: UInt32, send: UInt32) throws(KernelError) {
        try set(fd, SOL_SOCKET, SO_RCVBUFFORCE, Int32(clamping: receive / 2))
        try set(fd, SOL_SOCKET, SO_SNDBUFFORCE, Int32(clamping: send / 2))
    }
}

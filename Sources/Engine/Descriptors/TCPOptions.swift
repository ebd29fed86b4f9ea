// The options of a TCP socket that are carried, in the order in which they are set again.
import CLinux
import Foundation
import LinuxKernel

/// One line of the table: an option whose value is read as bytes and set again as the same bytes.
struct TCPOption: Sendable {
    /// When it is set: some count only before bind(2), the rest when the connection is there.
    enum Moment: Sendable { case beforeBind, afterConnect }
    let level: Int32
    let name: Int32
    let moment: Moment
    /// Kinds of socket that have it.
    var listenerOnly = false
    /// An empty or all-zero value is not set again: it is the default and setting it means something else, or fails.
    var skipZero = false

    init(
        _ level: Int32, _ name: Int32, _ moment: Moment = .afterConnect, listenerOnly: Bool = false,
        skipZero: Bool = false
    ) {
        self.level = level
        self.name = name
        self.moment = moment
        self.listenerOnly = listenerOnly
        self.skipZero = skipZero
    }

    /// Not in here because they have a place of their own: buffer sizes and their lock, SO_REUSEADDR, SO_REUSEPORT.
    /// Not carried because the kernel steers them itself: TCP_QUICKACK, TCP_WINDOW_CLAMP, SO_INCOMING_CPU.
    static let table: [TCPOption] = {
        let tcp = Int32(IPPROTO_TCP), ip = Int32(IPPROTO_IP)
        return [
            TCPOption(SOL_SOCKET, SO_BINDTODEVICE, .beforeBind, skipZero: true),
            TCPOption(SOL_SOCKET, SO_MARK, .beforeBind),
            TCPOption(ip, IP_FREEBIND, .beforeBind),
            TCPOption(ip, IP_TRANSPARENT, .beforeBind),
            TCPOption(ip, IP_BIND_ADDRESS_NO_PORT, .beforeBind),
            TCPOption(ip, IP_TOS), TCPOption(SOL_SOCKET, SO_PRIORITY),  // after IP_TOS, which sets it too
            TCPOption(ip, IP_TTL), TCPOption(ip, IP_MTU_DISCOVER), TCPOption(ip, IP_RECVERR),
            TCPOption(ip, IP_MINTTL),
            TCPOption(SOL_SOCKET, SO_LINGER), TCPOption(SOL_SOCKET, SO_OOBINLINE), TCPOption(SOL_SOCKET, SO_DONTROUTE),
            TCPOption(SOL_SOCKET, SO_RCVTIMEO), TCPOption(SOL_SOCKET, SO_SNDTIMEO), TCPOption(SOL_SOCKET, SO_RCVLOWAT),
            TCPOption(SOL_SOCKET, SO_TIMESTAMP, skipZero: true), TCPOption(SOL_SOCKET, SO_TIMESTAMPNS, skipZero: true),
            TCPOption(SOL_SOCKET, SO_TIMESTAMPING, skipZero: true), TCPOption(SOL_SOCKET, SO_BUSY_POLL, skipZero: true),
            TCPOption(SOL_SOCKET, SO_MAX_PACING_RATE), TCPOption(SOL_SOCKET, SO_ZEROCOPY, skipZero: true),
            TCPOption(tcp, TCP_CONGESTION),
            TCPOption(tcp, TCP_KEEPIDLE), TCPOption(tcp, TCP_KEEPINTVL), TCPOption(tcp, TCP_KEEPCNT),
            TCPOption(SOL_SOCKET, SO_KEEPALIVE),  // after its times
            TCPOption(tcp, TCP_SYNCNT), TCPOption(tcp, TCP_LINGER2), TCPOption(tcp, TCP_USER_TIMEOUT),
            TCPOption(tcp, TCP_NOTSENT_LOWAT, skipZero: true),
            TCPOption(tcp, TCP_THIN_LINEAR_TIMEOUTS), TCPOption(tcp, TCP_INQ, skipZero: true),
            TCPOption(tcp, TCP_DEFER_ACCEPT, listenerOnly: true), TCPOption(tcp, TCP_SAVE_SYN, listenerOnly: true),
            TCPOption(tcp, TCP_FASTOPEN, listenerOnly: true, skipZero: true),
            TCPOption(tcp, TCP_NODELAY), TCPOption(tcp, TCP_CORK),
        ]
    }()
    static let table6: [TCPOption] = {
        let ip6 = Int32(IPPROTO_IPV6)
        return [
            TCPOption(ip6, IPV6_V6ONLY, .beforeBind), TCPOption(ip6, IPV6_UNICAST_HOPS), TCPOption(ip6, IPV6_TCLASS),
            TCPOption(ip6, IPV6_MTU_DISCOVER), TCPOption(ip6, IPV6_RECVERR),
        ]
    }()
}

extension SocketOptions {
    /// The kernel paces what the socket sends: BBR, or a rate set by the program (SO_MAX_PACING_RATE, not all ones).
    var isPaced: Bool {
        options.contains { line in
            if line.level == Int32(IPPROTO_TCP) && line.name == TCP_CONGESTION {
                return line.value.starts(with: "bbr".utf8)
            }
            return line.level == SOL_SOCKET && line.name == SO_MAX_PACING_RATE && line.value.contains { $0 != 0xff }
        }
    }
}

extension TCPSocket {
    /// Reads the options of a socket. `reuseAddress`: SO_REUSEADDR as it was before repair mode overwrote it.
    static func captureOptions(_ fd: Int32, family: Int32, listener: Bool, reuseAddress: Bool)
        throws(KernelError) -> SocketOptions
    {
        var image = SocketOptions()
        image.reuseAddress = reuseAddress
        image.reusePort = try get(fd, SOL_SOCKET, SO_REUSEPORT) != 0
        image.sendBuffer = UInt32(bitPattern: try get(fd, SOL_SOCKET, SO_SNDBUF))
        image.receiveBuffer = UInt32(bitPattern: try get(fd, SOL_SOCKET, SO_RCVBUF))
        image.bufferLock = UInt32(bitPattern: try get(fd, SOL_SOCKET, SO_BUF_LOCK))
        image.options.reserveCapacity(TCPOption.table.count + TCPOption.table6.count)
        for option in TCPOption.table where listener || !option.listenerOnly {
            try append(fd, option, to: &image)
        }
        if family == AF_INET6 {
            for option in TCPOption.table6 { try append(fd, option, to: &image) }
        }
        return image
    }
    private static func append(_ fd: Int32, _ option: TCPOption, to image: inout SocketOptions) throws(KernelError) {
        var value: (UInt64, UInt64) = (0, 0), size = UInt32(16)
        let result = clx_getsockopt(fd, option.level, option.name, &value, &size)
        if result == -ENOPROTOOPT || result == -EOPNOTSUPP { return }  // this kernel has none: nobody can have set it
        try check(result, "reading option \(option.level)/\(option.name) of descriptor \(fd)")
        if option.skipZero && (size == 0 || value == (0, 0)) { return }
        var line = SocketOptions.Option()
        line.level = option.level
        line.name = option.name
        line.value = withUnsafeBytes(of: value) { Data($0.prefix(Int(size))) }
        image.options.append(line)
    }

    /// Sets the captured options of one moment. Only what the table names is set, whatever the image holds.
    static func restoreOptions(_ fd: Int32, _ image: SocketOptions, _ moment: TCPOption.Moment) throws(KernelError) {
        for line in image.options {
            guard let option = known(line) else {
                throw KernelError("restoring socket option \(line.level)/\(line.name): not in the table", .invalid)
            }
            guard option.moment == moment else { continue }
            let result = line.value.withUnsafeBytes {
                clx_setsockopt(fd, line.level, line.name, $0.baseAddress, UInt32($0.count))
            }
            try check(result, "restoring socket option \(line.level)/\(line.name) of descriptor \(fd)")
        }
    }
    private static func known(_ line: SocketOptions.Option) -> TCPOption? {
        TCPOption.table.first { $0.level == line.level && $0.name == line.name }
            ?? TCPOption.table6.first { $0.level == line.level && $0.name == line.name }
    }

    /// Forces the buffers to at least the captured sizes; the kernel doubles what it is given.
    static func forceBuffers(_ fd: Int32, receive: UInt32, send: UInt32) throws(KernelError) {
        try set(fd, SOL_SOCKET, SO_RCVBUFFORCE, Int32(clamping: receive / 2))
        try set(fd, SOL_SOCKET, SO_SNDBUFFORCE, Int32(clamping: send / 2))
    }
}

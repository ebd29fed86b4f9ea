// The options of sockets that are carried: read as bytes, and set again as the same bytes, in the order of these tables.
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

    /// Of both protocols. Not in here because they have a place of their own: buffer sizes and their lock, SO_REUSEADDR,
    /// SO_REUSEPORT. Not carried because the kernel steers it itself: SO_INCOMING_CPU.
    static let common: [SocketOption] = {
        let ip = Int32(IPPROTO_IP)
        return [
            SocketOption(SOL_SOCKET, SO_BINDTODEVICE, .beforeBind, skipZero: true),
            SocketOption(SOL_SOCKET, SO_MARK, .beforeBind),
            SocketOption(ip, IP_FREEBIND, .beforeBind),
            SocketOption(ip, IP_TRANSPARENT, .beforeBind),
            SocketOption(ip, IP_BIND_ADDRESS_NO_PORT, .beforeBind),
            SocketOption(ip, IP_TOS), SocketOption(SOL_SOCKET, SO_PRIORITY),  // after IP_TOS, which sets it too
            SocketOption(ip, IP_TTL), SocketOption(ip, IP_MTU_DISCOVER), SocketOption(ip, IP_RECVERR),
            SocketOption(ip, IP_MINTTL),
            SocketOption(SOL_SOCKET, SO_LINGER), SocketOption(SOL_SOCKET, SO_OOBINLINE),
            SocketOption(SOL_SOCKET, SO_DONTROUTE),
            SocketOption(SOL_SOCKET, SO_RCVTIMEO), SocketOption(SOL_SOCKET, SO_SNDTIMEO),
            SocketOption(SOL_SOCKET, SO_RCVLOWAT),
            SocketOption(SOL_SOCKET, SO_TIMESTAMP, skipZero: true),
            SocketOption(SOL_SOCKET, SO_TIMESTAMPNS, skipZero: true),
            SocketOption(SOL_SOCKET, SO_TIMESTAMPING, skipZero: true),
            SocketOption(SOL_SOCKET, SO_BUSY_POLL, skipZero: true),
            SocketOption(SOL_SOCKET, SO_MAX_PACING_RATE), SocketOption(SOL_SOCKET, SO_ZEROCOPY, skipZero: true),
        ]
    }()
    /// Of both protocols, IPv6.
    static let common6: [SocketOption] = {
        let ip6 = Int32(IPPROTO_IPV6)
        return [
            SocketOption(ip6, IPV6_V6ONLY, .beforeBind), SocketOption(ip6, IPV6_UNICAST_HOPS),
            SocketOption(ip6, IPV6_TCLASS), SocketOption(ip6, IPV6_MTU_DISCOVER), SocketOption(ip6, IPV6_RECVERR),
        ]
    }()
}

extension InetSocket {
    /// Reads the options of a socket. `reuseAddress`: SO_REUSEADDR, where it is not what the kernel tells now.
    static func captureOptions(
        _ fd: Int32, _ table: [SocketOption], listener: Bool = false, reuseAddress: Bool? = nil
    ) throws(KernelError) -> SocketOptions {
        var image = SocketOptions()
        image.reuseAddress =
            if let reuseAddress { reuseAddress } else { try get(fd, SOL_SOCKET, SO_REUSEADDR) != 0 }
        image.reusePort = try get(fd, SOL_SOCKET, SO_REUSEPORT) != 0
        image.sendBuffer = UInt32(bitPattern: try get(fd, SOL_SOCKET, SO_SNDBUF))
        image.receiveBuffer = UInt32(bitPattern: try get(fd, SOL_SOCKET, SO_RCVBUF))
        image.bufferLock = UInt32(bitPattern: try get(fd, SOL_SOCKET, SO_BUF_LOCK))
        image.options.reserveCapacity(table.count)
        for option in table where listener || !option.listenerOnly { try append(fd, option, to: &image) }
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
        var line = SocketOptions.Option()
        line.level = option.level
        line.name = option.name
        line.value = withUnsafeBytes(of: value) { Data($0.prefix(Int(size))) }
        image.options.append(line)
    }

    /// Sets the captured options of one moment. Only what the table names is set, whatever the image holds.
    static func restoreOptions(
        _ fd: Int32, _ image: SocketOptions, _ table: [SocketOption], _ moment: SocketOption.Moment
    ) throws(KernelError) {
        for line in image.options {
            guard let option = table.first(where: { $0.level == line.level && $0.name == line.name }) else {
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

// The options that TCP sockets have besides those of all sockets.
import Foundation
import LinuxKernel

extension TCPSocket {
    // include/uapi/linux/tcp.h: newer than the C library.
    private static let TCP_FASTOPEN_CONNECT: Int32 = 30, TCP_FASTOPEN_NO_COOKIE: Int32 = 34, TCP_TX_DELAY: Int32 = 37
    private static let TCP_RTO_MAX_MS: Int32 = 44, TCP_RTO_MIN_US: Int32 = 45, TCP_DELACK_MAX_US: Int32 = 46
    private static let SO_TXREHASH: Int32 = 74

    /// In the order of the kernel's getsockopt(2) where nothing speaks against it. Not carried because the kernel
    /// steers it itself: TCP_QUICKACK. Refused, see `uncarriedOption`: TCP_FASTOPEN_CONNECT.
    private static let own: [SocketOption] = {
        let tcp = Int32(IPPROTO_TCP)
        return [
            SocketOption(tcp, TCP_CONGESTION),
            SocketOption(tcp, TCP_KEEPIDLE), SocketOption(tcp, TCP_KEEPINTVL), SocketOption(tcp, TCP_KEEPCNT),
            SocketOption(SOL_SOCKET, SO_KEEPALIVE),  // after its times
            SocketOption(tcp, TCP_SYNCNT), SocketOption(tcp, TCP_LINGER2), SocketOption(tcp, TCP_USER_TIMEOUT),
            SocketOption(tcp, TCP_NOTSENT_LOWAT, skipZero: true),
            SocketOption(tcp, TCP_THIN_LINEAR_TIMEOUTS), SocketOption(tcp, TCP_INQ, skipZero: true),
            SocketOption(tcp, TCP_DEFER_ACCEPT, listenerOnly: true),
            SocketOption(tcp, TCP_SAVE_SYN, listenerOnly: true),
            SocketOption(tcp, TCP_FASTOPEN, listenerOnly: true, skipZero: true),
            SocketOption(tcp, TCP_FASTOPEN_NO_COOKIE, .beforeBind, skipZero: true),
            // Of a connection it is part of what both ends agreed on. A listener without it shows the protocol's
            // default.
            SocketOption(tcp, TCP_MAXSEG, listenerOnly: true, usual: 536),
            SocketOption(tcp, TCP_WINDOW_CLAMP, skipZero: true), SocketOption(tcp, TCP_TX_DELAY, skipZero: true),
            SocketOption(tcp, TCP_RTO_MAX_MS, usual: 120_000), SocketOption(tcp, TCP_RTO_MIN_US, usual: 200_000),
            SocketOption(tcp, TCP_DELACK_MAX_US, usual: 200_000),
            SocketOption(SOL_SOCKET, SO_TXREHASH, usual: 255),
            SocketOption(tcp, TCP_NODELAY), SocketOption(tcp, TCP_CORK),
        ]
    }()
    /// An option that differs from its default and cannot be set again.
    static func uncarriedOption(_ fd: Int32) -> String? {
        if (try? get(fd, Int32(IPPROTO_TCP), TCP_FASTOPEN_CONNECT)) ?? 0 != 0 { return "TCP_FASTOPEN_CONNECT" }
        return nil
    }

    private static let table = SocketOptionTable(SocketOption.common + own)
    private static let table6 = SocketOptionTable(table.options + SocketOption.common6)

    /// Reads the options of a socket. `reuseAddress`: SO_REUSEADDR as it was before repair mode overwrote it.
    static func captureOptions(_ fd: Int32, family: Int32, listener: Bool, reuseAddress: Bool)
        throws(KernelError) -> SocketOptions
    {
        try captureOptions(
            fd, family == AF_INET6 ? table6 : table, listener: listener, reuseAddress: reuseAddress)
    }
    static func restoreOptions(_ fd: Int32, _ image: SocketOptions, _ moment: SocketOption.Moment)
        throws(KernelError)
    {
        try restoreOptions(fd, image, table6, moment)
    }
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

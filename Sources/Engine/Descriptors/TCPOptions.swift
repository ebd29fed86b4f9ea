// The options that TCP sockets have besides those of all sockets.
import Foundation
import LinuxKernel

extension TCPSocket {
    /// Not carried because the kernel steers them itself: TCP_QUICKACK, TCP_WINDOW_CLAMP.
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
            SocketOption(tcp, TCP_NODELAY), SocketOption(tcp, TCP_CORK),
        ]
    }()
    private static let table = SocketOption.common + own
    private static let table6 = table + SocketOption.common6

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

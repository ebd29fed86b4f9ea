// UDP sockets: what can be carried, their capture, and their making again.
//
// All functions work on a plain descriptor of the socket (pidfd_getfd gives one) and need CAP_NET_ADMIN over its
// network namespace. What has arrived and was not read is in UDPQueue.swift; it is put back by UDPInjector.swift.
import CLinux
import Foundation
import LinuxKernel

/// Capture and restore of UDP sockets.
///
/// Carried: sockets not bound, bound, and connected, their options, and their queue of datagrams.
public enum UDPSocket: InetSocket {
    /// Bytes of memory that unread datagrams of a socket may take: to look through more would take long in the freeze,
    /// as the kernel counts from the first for each.
    public static let mostQueued: UInt32 = 4 << 20

    /// Why this socket cannot be carried, or nil. Asks only; for before the freeze.
    public static func obstacle(_ fd: Int32, pid: Int32) -> String? {
        do throws(KernelError) {
            let family = try get(fd, SOL_SOCKET, SO_DOMAIN)
            if let obstacle = try commonObstacle(fd) { return "UDP socket with \(obstacle)" }
            // Reading the option alone tells of ESP in UDP, L2TP and the like.
            if (try? get(fd, Int32(IPPROTO_UDP), UDP_ENCAP)) ?? 0 != 0 { return "UDP socket with UDP_ENCAP" }
            if let option = chosenInterface(fd, family: family) { return "UDP socket with \(option), not carried yet" }
            if let group = try UDPGroups.joined(fd, pid: pid, family: family) {
                return "UDP socket in multicast group \(group), not carried yet"
            }
            let events = poll(fd)
            if events & POLLERR != 0 { return "UDP socket with an error pending" }
            if events & 0x2000 != 0 { return "UDP socket that is shut down, not carried yet" }  // POLLRDHUP
            if try check(clx_udp_is_corked(fd, family), "looking for a datagram begun") == 1 {
                return "UDP socket with a datagram begun (UDP_CORK, MSG_MORE)"
            }
            let queued = try memory(fd).queued
            if queued > mostQueued { return "UDP socket with \(queued >> 10) KiB of datagrams not read" }
            return nil
        } catch { return "\(error)" }
    }

    /// What of SO_MEMINFO is used.
    struct Memory {
        /// Bytes of memory that unread datagrams take: never 0 if there are any, and it grows with each.
        var queued: UInt32
        /// Datagrams that did not fit.
        var dropped: UInt32
    }
    static func memory(_ fd: Int32) throws(KernelError) -> Memory {
        var words: (UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32) =
            (0, 0, 0, 0, 0, 0, 0, 0, 0)
        var size = UInt32(36)
        try check(clx_getsockopt(fd, SOL_SOCKET, 55, &words, &size), "reading SO_MEMINFO of descriptor \(fd)")
        return Memory(queued: words.0, dropped: words.8)
    }

    /// Captures a socket, but its queue. It stays as it is.
    public static func capture(_ fd: Int32) throws(KernelError) -> UDPEndpoint {
        var image = UDPEndpoint()
        image.family = try get(fd, SOL_SOCKET, SO_DOMAIN)
        let local = try address(fd, peer: false)
        if UDPAddress(local).port != 0 { image.local = local }
        do { image.remote = try address(fd, peer: true) } catch { if error.errno != .notConnected { throw error } }
        image.options = try captureOptions(fd, family: image.family)
        return image
    }

    /// Makes a fresh socket (of the image's family, in the container's namespace) what the image says, but its peer and
    /// its queue: datagrams from before it had a peer may be from anyone.
    ///
    /// All sockets of a port can be bound, whatever they let others do: until `finish` they have SO_REUSEADDR.
    public static func restore(_ fd: Int32, _ image: UDPEndpoint) throws(KernelError) {
        let options = image.options
        try set(fd, SOL_SOCKET, SO_REUSEADDR, 1)
        try set(fd, SOL_SOCKET, SO_REUSEPORT, options.reusePort ? 1 : 0)
        try forceBuffers(fd, receive: options.receiveBuffer, send: options.sendBuffer)
        try restoreOptions(fd, options, .beforeBind)
        if !image.local.isEmpty { try apply(image.local, "binding a UDP socket") { bind(fd, $0, $1) } }
        try restoreOptions(fd, options, .afterConnect)
        try set(fd, SOL_SOCKET, SO_BUF_LOCK, Int32(bitPattern: options.bufferLock))
    }

    /// Gives the sockets of a container their queues, then their peers. What comes from outside is still held.
    static func finish(_ sockets: [(fd: Int32, image: UDPEndpoint)], _ injector: UDPInjector?) throws(KernelError) {
        for socket in sockets where !socket.image.queue.datagrams.isEmpty {
            guard let injector else {
                throw KernelError("restoring the queue of a UDP socket: no network to put it back from", .invalid)
            }
            let others = sockets.filter {
                $0.fd != socket.fd && UDPAddress($0.image.local).port == UDPAddress(socket.image.local).port
            }
            for other in others { try set(other.fd, SOL_SOCKET, SO_BINDTOIFINDEX, Int32.max) }
            try refill(socket.fd, socket.image, injector)
            for other in others { try bindToDevice(other.fd, other.image) }
        }
        for (fd, image) in sockets {
            if !image.remote.isEmpty { try apply(image.remote, "connecting a UDP socket") { connect(fd, $0, $1) } }
            try set(fd, SOL_SOCKET, SO_REUSEADDR, image.options.reuseAddress ? 1 : 0)
        }
    }
    private static let SO_BINDTOIFINDEX: Int32 = 62

    /// Takes a socket back from the interface that there is not.
    private static func bindToDevice(_ fd: Int32, _ image: UDPEndpoint) throws(KernelError) {
        try set(fd, SOL_SOCKET, SO_BINDTOIFINDEX, 0)
        for line in image.options.options where line.level == SOL_SOCKET && line.name == SO_BINDTODEVICE {
            let result = line.value.withUnsafeBytes {
                clx_setsockopt(fd, line.level, line.name, $0.baseAddress, UInt32($0.count))
            }
            try check(result, "binding descriptor \(fd) to its device again")
        }
    }

    /// Delivers a queue, with room for all of it; the size of the buffer counts for what comes after.
    private static func refill(_ fd: Int32, _ image: UDPEndpoint, _ injector: UDPInjector) throws(KernelError) {
        let options = image.options
        try forceBuffers(fd, receive: UInt32(Int32.max), send: options.sendBuffer)
        for datagram in image.queue.datagrams { try injector.deliver(datagram, to: fd, image) }
        try forceBuffers(fd, receive: options.receiveBuffer, send: options.sendBuffer)
        try set(fd, SOL_SOCKET, SO_BUF_LOCK, Int32(bitPattern: options.bufferLock))
    }
}

/// Host and port of a sockaddr.
struct UDPAddress: Hashable {
    /// 4 or 16 bytes in network order; an IPv4 address in IPv6 clothes has 4. Empty: no address.
    let host: [UInt8]
    let port: UInt16

    init(_ data: Data) {
        let bytes = [UInt8](data)
        port = bytes.count >= 4 ? UInt16(bytes[2]) << 8 | UInt16(bytes[3]) : 0
        switch bytes.count {
        case 28...: host = Self.plain([UInt8](bytes[8..<24]))
        case 8...: host = [UInt8](bytes[4..<8])
        default: host = []
        }
    }
    static func plain(_ host: [UInt8]) -> [UInt8] {
        let mapped: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
        return host.count == 16 && host.starts(with: mapped) ? [UInt8](host[12...]) : host
    }
}

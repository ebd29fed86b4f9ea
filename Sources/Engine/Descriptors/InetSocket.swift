// What TCP and UDP sockets have in common: the calls that capture and restore share, and what neither can carry.
import CLinux
import Foundation
import LinuxKernel

private let POLLRDHUP: Int32 = 0x2000

/// Sockets of the Internet families, by plain descriptors of them.
protocol InetSocket {}

extension InetSocket {
    static func get(_ fd: Int32, _ level: Int32, _ name: Int32) throws(KernelError) -> Int32 {
        var value: Int32 = 0, size = UInt32(4)
        try check(
            clx_getsockopt(fd, level, name, &value, &size), "reading option \(level)/\(name) of descriptor \(fd)")
        return value
    }
    static func set(_ fd: Int32, _ level: Int32, _ name: Int32, _ value: Int32) throws(KernelError) {
        var value = value
        try check(clx_setsockopt(fd, level, name, &value, 4), "setting option \(level)/\(name) of descriptor \(fd)")
    }
    static func poll(_ fd: Int32) -> Int32 {
        var entry = pollfd(fd: fd, events: Int16(POLLPRI | POLLRDHUP), revents: 0)
        return Glibc.poll(&entry, 1, 0) > 0 ? Int32(entry.revents) : 0
    }

    /// A socket's own or its peer's address, as the kernel writes it.
    static func address(_ fd: Int32, peer: Bool) throws(KernelError) -> Data {
        var storage = sockaddr_storage(), size = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) { pointer in
            // SAFETY: sockaddr_storage is made to be seen as any sockaddr; size says how long it is.
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                peer ? getpeername(fd, $0, &size) : getsockname(fd, $0, &size)
            }
        }
        try checkC(result, "reading the address of descriptor \(fd)")
        return withUnsafeBytes(of: storage) { Data($0.prefix(Int(size))) }
    }
    /// bind(2) or connect(2) with an address as captured.
    static func apply(_ address: Data, _ what: StaticString, _ call: (UnsafePointer<sockaddr>, socklen_t) -> Int32)
        throws(KernelError)
    {
        var storage = sockaddr_storage()
        guard address.count <= MemoryLayout<sockaddr_storage>.size else { throw KernelError("\(what)", .invalid) }
        withUnsafeMutableBytes(of: &storage) { $0.copyBytes(from: address) }
        let result = withUnsafePointer(to: &storage) { pointer in
            // SAFETY: as in address(_:peer:).
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { call($0, socklen_t(address.count)) }
        }
        try checkC(result, "\(what)")
    }

    /// What keeps any socket from being carried, or nil.
    static func commonObstacle(_ fd: Int32) throws(KernelError) -> String? {
        var size: UInt32 = 0
        // EACCES: a BPF program, which cannot be read.
        let filter = clx_getsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, nil, &size)
        if filter == -EACCES || filter == 0 && size > 0 { return "socket filter" }
        if (try? get(fd, SOL_SOCKET, SO_PEEK_OFF)) ?? -1 >= 0 { return "SO_PEEK_OFF" }
        if (try? get(fd, SOL_SOCKET, 73)) ?? 0 != 0 { return "SO_RESERVE_MEM" }
        if try get(fd, SOL_SOCKET, SO_DOMAIN) == AF_INET {
            var options = [UInt8](repeating: 0, count: 64)
            size = 64
            if clx_getsockopt(fd, Int32(IPPROTO_IP), IP_OPTIONS, &options, &size) == 0, size > 0 {
                return "IP options"
            }
        } else {
            // IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_DSTOPTS.
            for name: Int32 in [54, 55, 57, 59] {
                var header = [UInt8](repeating: 0, count: 64)
                size = 64
                if clx_getsockopt(fd, Int32(IPPROTO_IPV6), name, &header, &size) == 0, size > 0 {
                    return "IPv6 extension headers"
                }
            }
        }
        return nil
    }
}

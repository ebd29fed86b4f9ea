// TAP interfaces with the offloads that let a TCP segment of 64 KiB pass as one frame.
import CLinux
import Glibc
import LinuxKernel

/// A TAP interface of a namespace. It stays when its descriptor is closed, without carrier, so that addresses and
/// routes outlive the process that moves the frames; it goes with its namespace.
final class TAP: Sendable {
    let descriptor: FileDescriptor
    let end: LinkEnd

    /// Ahead of every frame that is read or written: struct virtio_net_hdr.
    static let header = 10

    /// Makes the interface, or takes over the one that an earlier process left.
    init(_ end: LinkEnd) throws {
        self.end = end
        let name = Array(end.interface.utf8)
        guard (1..<IFNAMSIZ).contains(name.count) else { throw TestbedError("interface name \"\(end.interface)\"") }
        descriptor = try end.namespace.run {
            let descriptor = try FileDescriptor(opening: "/dev/net/tun", O_RDWR | O_NONBLOCK)
            // struct ifreq: the name, then the flags.
            var request = [UInt8](repeating: 0, count: 40)
            request.replaceSubrange(0..<name.count, with: name)
            let flags = UInt16(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
            (request[16], request[17]) = (UInt8(flags & 255), UInt8(flags >> 8))
            let what = "interface \(end.interface) of \(end.network)"
            try check(clx_ioctl(descriptor.number, TUNSETIFF, &request), "making \(what)")
            try check(
                clx_ioctl_value(descriptor.number, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6),
                "setting the offloads of \(what)")
            try check(clx_ioctl_value(descriptor.number, TUNSETPERSIST, 1), "keeping \(what)")
            return descriptor
        }
        if let mac = end.mac {
            try runProgram("ip", ["link", "set", "dev", end.interface, "address", mac], namespace: end.namespace)
        }
    }
}

// include/uapi/linux/if_tun.h.
private let TUNSETIFF: UInt = 0x4004_54ca
private let TUNSETPERSIST: UInt = 0x4004_54cb
private let TUNSETOFFLOAD: UInt = 0x4004_54d0
private let IFF_TAP = 0x0002
private let IFF_NO_PI = 0x1000
private let IFF_VNET_HDR = 0x4000
private let TUN_F_CSUM: UInt64 = 1
private let TUN_F_TSO4: UInt64 = 2
private let TUN_F_TSO6: UInt64 = 4
private let IFNAMSIZ = 16

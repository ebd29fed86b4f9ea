// Packets made by hand for a container's own addresses: they go over its namespace's loopback and never leave it.
import CLinux
import Foundation
import LinuxKernel

/// Raw sockets in a container's network namespace.
final class RawSockets: Sendable {
    private let socket4: FileDescriptor
    /// nil where the namespace has no IPv6.
    private let socket6: FileDescriptor?

    init(in namespace: NetworkNamespace) throws(KernelError) {
        func open(_ family: Int32) throws(KernelError) -> Int32 {
            try namespace.run { () throws(KernelError) in
                let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
                return try checkC(socket(family, type, Int32(IPPROTO_RAW)), "opening a raw socket")
            }
        }
        socket4 = FileDescriptor(owning: try open(AF_INET))
        socket6 = (try? open(AF_INET6)).map { FileDescriptor(owning: $0) }
    }

    /// Sends a packet, IP header included, to an address of 4 or 16 bytes.
    func send(_ packet: [UInt8], to host: [UInt8]) throws(KernelError) {
        var target = sockaddr_storage()
        let size: Int, raw: FileDescriptor
        if host.count == 4 {
            raw = socket4
            size = MemoryLayout<sockaddr_in>.size
            withUnsafeMutableBytes(of: &target) {
                $0.storeBytes(of: UInt16(AF_INET), as: UInt16.self)
                $0[4..<8].copyBytes(from: host)
            }
        } else {
            guard let socket6, host.count == 16 else {
                throw KernelError("sending a packet over the loopback: no IPv6", .invalid)
            }
            raw = socket6
            size = MemoryLayout<sockaddr_in6>.size
            withUnsafeMutableBytes(of: &target) {
                $0.storeBytes(of: UInt16(AF_INET6), as: UInt16.self)
                $0[8..<24].copyBytes(from: host)
            }
        }
        let bytes = withUnsafeBytes(of: target) { Data($0.prefix(size)) }
        try TCPSocket.apply(bytes, "sending a packet over the loopback") {
            Int32(truncatingIfNeeded: sendto(raw.number, packet, packet.count, 0, $0, $1))
        }
    }
}

/// Bytes in network order.
func big<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value.bigEndian) { [UInt8]($0) }
}

// UDP sockets in namespaces by plain calls, and their move between the hosts of a lab.
import Containers
import Foundation
import LinuxKernel
import NetworkTestSupport

@testable import Engine

enum Peer {
    static func socket(_ namespace: NetworkNamespace, _ family: Int32) throws -> Int32 {
        try namespace.run { () throws(KernelError) in
            try checkC(Glibc.socket(family, Int32(SOCK_DGRAM.rawValue), 0), "socket")
        }
    }
    static func address(_ host: String, _ port: UInt16) -> Data {
        let host = IPAddress(host)!
        let end = host.isIPv6 ? [UInt8](repeating: 0, count: 4) : [UInt8](repeating: 0, count: 8)
        let begin = withUnsafeBytes(of: UInt16(host.family)) { [UInt8]($0) } + big(port)
        return Data(begin + (host.isIPv6 ? [0, 0, 0, 0] : []) + host.bytes + end)
    }
    /// Where others reach a socket that has sent something or is bound.
    static func address(_ fd: Int32, _ host: String) throws -> Data {
        let unbound = UDPAddress(try UDPSocket.address(fd, peer: false)).port == 0
        if unbound { try bind(fd, IPAddress(host)!.isIPv6 ? "::" : "0.0.0.0", 0) }
        return address(host, UDPAddress(try UDPSocket.address(fd, peer: false)).port)
    }
    static func bind(_ fd: Int32, _ host: String, _ port: UInt16) throws {
        try UDPSocket.apply(address(host, port), "bind") { Glibc.bind(fd, $0, $1) }
    }
    static func connect(_ fd: Int32, _ address: Data) throws {
        try UDPSocket.apply(address, "connect") { Glibc.connect(fd, $0, $1) }
    }
    static func answer(_ fd: Int32, _ address: Data, _ bytes: [UInt8]) throws {
        try UDPSocket.apply(address, "sendto") { Int32(sendto(fd, bytes, bytes.count, 0, $0, $1)) }
    }
    static func send(_ fd: Int32, _ host: String, _ port: UInt16, _ bytes: [UInt8]) throws {
        try answer(fd, address(host, port), bytes)
    }
    /// The next datagram, awaited for a second.
    static func receive(_ fd: Int32) throws -> (from: Data, content: [UInt8]) {
        guard Sockets.readable(fd, within: 1000) else { throw KernelError("waiting for a datagram", .timedOut) }
        var from = sockaddr_storage(), size = socklen_t(MemoryLayout<sockaddr_storage>.size)
        var buffer = [UInt8](repeating: 0, count: 1 << 17)
        let count = withUnsafeMutablePointer(to: &from) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                recvfrom(fd, &buffer, buffer.count, Int32(MSG_DONTWAIT), $0, &size)
            }
        }
        try checkC(Int32(truncatingIfNeeded: count), "recvfrom")
        return (withUnsafeBytes(of: from) { Data($0.prefix(Int(size))) }, [UInt8](buffer[..<count]))
    }
    static func setDevice(_ fd: Int32, _ name: String) {
        _ = name.withCString { setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, $0, socklen_t(name.utf8.count)) }
    }
    /// A filter that lets everything pass.
    static func attachFilter(_ fd: Int32) {
        var code: UInt64 = 6 | 0xffff << 32  // BPF_RET | BPF_K
        withUnsafeMutablePointer(to: &code) { code in
            // struct sock_fprog: count, padding, pointer.
            var program: (UInt64, UnsafeMutablePointer<UInt64>) = (1, code)
            _ = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, 16)
        }
    }
}

extension Mover {
    /// Moves UDP sockets in the order of the handover; their program is the test itself, and does not read. Returns
    /// them as they are at `b`.
    ///
    /// - Parameters:
    ///   - queue: is shown what is in each socket's queue.
    ///   - blackout: called while frames are held.
    func moveDatagrams(
        _ sockets: [Int32], queue: (DatagramQueue) -> Void = { _ in }, blackout: () throws -> Void = {}
    ) throws -> [Int32] {
        let lab = lab, box = box
        let injector = try lab.b.run { () throws(KernelError) in
            try UDPInjector(
                port: try NetlinkSocket().link(lab.attachment("b").port).index, namespace: box,
                mac: lab.spec.mac, mtu: lab.spec.mtu, addresses: lab.spec.addresses.compactMap { IPPrefix($0)?.address }
            )
        }
        var images = try sockets.map { try UDPSocket.capture($0) }
        let fresh = try images.map { try Peer.socket(box, $0.family) }
        try time("accept (B)") { try destination.accept() }
        for (fd, image) in zip(fresh, images) { try UDPSocket.restore(fd, image) }
        try time("redirect (A)") { try source.redirect() }
        try time("backlog (A)") {
            guard try ReceiveBacklog.drain(milliseconds: 50) else { throw KernelError("draining", .timedOut) }
        }
        try time("silence (A)") { try source.silence() }
        try time("capture") {
            for (index, fd) in sockets.enumerated() { images[index].queue = try UDPSocket.captureQueue(fd) }
        }
        for image in images { queue(image.queue) }
        try blackout()
        usleep(10_000)
        // Over the wire, as bytes.
        images = try images.map { try UDPEndpoint(serializedBytes: $0.serializedData()) }
        try time("restore") { try UDPSocket.finish(zip(fresh, images).map { ($0, $1) }, injector) }
        try time("open (B)") { try destination.open() }
        return fresh
    }
}

import Foundation
import Glibc
import LinuxKernel
import NetworkTestSupport
import Testing

@testable import Testbed

/// Two namespaces and one emulated link between them, moved by the built program.
final class LinkBed {
    let a = NamedNetwork("link-test-a")
    let b = NamedNetwork("link-test-b")
    static let (addressA, addressB) = ("10.79.0.1", "10.79.0.2")
    let service = LinkService(instance: "link-test")
    private(set) var process: ChildProcess!

    init(_ forward: LinkQuality = .init(), _ backward: LinkQuality? = nil) throws {
        down()
        do {
            for namespace in [a, b] { try namespace.create() }
            let program = try #require(try BuiltProgram.path(), "the apus program stands beside the tests")
            let link = EmulatedLink(
                name: "ab", a: LinkEnd(network: a.name, interface: "tap0", mac: "02:a9:00:00:09:01"),
                b: LinkEnd(network: b.name, interface: "tap0"), forward: forward, backward: backward ?? forward)
            process = try service.start([link], executable: program)
            for (namespace, address) in [(a, Self.addressA), (b, Self.addressB)] {
                try runProgram(
                    "ip", ["-batch", "-"],
                    input: "link set lo up\naddr add \(address)/24 dev tap0\nlink set tap0 up\n", namespace: namespace)
            }
        } catch {
            down()
            throw error
        }
    }

    func down() {
        service.end()
        for namespace in [a, b] { namespace.delete() }
    }

    /// What is left: empty after `down`.
    var leftovers: [String] {
        [a, b].filter(\.exists).map(\.name) + service.processes.map { "\($0)" }
            + [service.folder].filter { FileManager.default.fileExists(atPath: $0) }
    }

    /// Milliseconds of a round trip; the first one may hold ARP's.
    func roundTrip(seconds: Double = 5) throws -> Double {
        Double(try Ping.roundTrip(from: a, to: Self.addressB, seconds: seconds)) / 1e6
    }

    var status: LinkStatus { get throws { try #require(try service.status().first) } }

    static func quality(_ body: (inout LinkQuality) -> Void) -> LinkQuality {
        var quality = LinkQuality()
        body(&quality)
        return quality
    }
    static func change(_ body: (inout LinkChange) -> Void) -> LinkChange {
        var change = LinkChange()
        body(&change)
        return change
    }
}

/// A TCP connection over the link, and a stream of random bytes each way at once.
struct Transfer {
    /// Bytes that arrived each way, compared with those that were sent.
    static func run(_ bed: LinkBed, count: Int) throws {
        let (inA, inB) = (try NetworkNamespace(opening: bed.a.path), try NetworkNamespace(opening: bed.b.path))
        let listener = try Sockets.listen(inB, 7000)
        let pair = try Sockets.pair(inA, listener, LinkBed.addressB, 7000)
        defer { for descriptor in [listener, pair.client, pair.server] { close(descriptor) } }
        var random = SystemRandomNumberGenerator()
        let content = (0..<count / 8).flatMap { _ in withUnsafeBytes(of: random.next()) { Array($0) } }
        let ends = [(pair.client, content), (pair.server, content.reversed())]
        let senders = try ends.map { descriptor, bytes in
            try OwnThread("sender") {
                var sent = 0
                while sent < bytes.count {
                    let n = bytes.withUnsafeBytes {
                        Glibc.send(descriptor, $0.baseAddress! + sent, $0.count - sent, 0x4000)
                    }
                    if n <= 0 { break }
                    sent += n
                }
                shutdown(descriptor, Int32(SHUT_WR))
            }
        }
        nonisolated(unsafe) var fromClient: [UInt8] = []
        let receiver = try OwnThread("receiver") { fromClient = receiveAll(pair.server) }
        let fromServer = receiveAll(pair.client)
        receiver.join()
        senders.forEach { $0.join() }
        #expect(fromClient == content)
        #expect(fromServer == content.reversed())
    }

    private static func receiveAll(_ descriptor: Int32) -> [UInt8] {
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var (result, buffer) = ([UInt8](), [UInt8](repeating: 0, count: 1 << 18))
        while true {
            let n = recv(descriptor, &buffer, buffer.count, 0)
            if n <= 0 { return result }
            result += buffer[..<n]
        }
    }
}

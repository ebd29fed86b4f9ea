// A way back in which one connection cannot be taken out of repair.
import Glibc
import LinuxKernel
import NetworkTestSupport
import Testing

@testable import Engine

@Suite(.enabled(if: geteuid() == 0)) struct ReleaseTests {
    @Test func eachConnectionIsGivenBackWhateverBecomesOfTheOthers() throws {
        let here = try NetworkNamespace(opening: "/proc/self/ns/net")
        let listener = FileDescriptor(owning: try Sockets.listen(here, 0))
        let port = UInt16(
            bigEndian: try TCPSocket.address(listener.number, peer: false).withUnsafeBytes {
                $0.loadUnaligned(fromByteOffset: 2, as: UInt16.self)
            })
        var capture = Capture(image: ProcessImage(), sockets: [:], writtenFiles: []), peers: [FileDescriptor] = []
        for index in 0..<8 {
            let pair = try Sockets.pair(here, listener.number, "127.0.0.1", port)
            peers.append(FileDescriptor(owning: pair.server))
            let repair = try TCPSocket.beginRepair(pair.client)
            capture.repaired[index] = .init(copy: FileDescriptor(owning: pair.client), repair: repair)
        }
        let all = capture.repaired.mapValues(\.copy)
        // Half of them are no sockets any more, as far as the kernel is concerned.
        let none = try FileDescriptor(opening: "/dev/null", O_RDONLY)
        for index in 0..<4 { capture.repaired[index] = .init(copy: none, repair: capture.repaired[index]!.repair) }

        #expect(throws: KernelError.self) { try capture.releaseConnections() }
        for index in 4..<8 {
            #expect(Sockets.get(all[index]!.number, Int32(IPPROTO_TCP), TCP_REPAIR) == 0, "connection \(index)")
        }
        // Those that failed are known still.
        #expect(Set(capture.repaired.keys) == [0, 1, 2, 3])
        withExtendedLifetime(peers) {}
    }
}

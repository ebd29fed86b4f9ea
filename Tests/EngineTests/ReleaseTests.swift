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
        var capture = TCPLateCapture([:]), peers: [FileDescriptor] = []
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

        #expect(throws: KernelError.self) { try capture.release() }
        for index in 4..<8 {
            #expect(Sockets.get(all[index]!.number, Int32(IPPROTO_TCP), TCP_REPAIR) == 0, "connection \(index)")
        }
        // Those that failed are known still.
        #expect(Set(capture.repaired.keys) == [0, 1, 2, 3])
        withExtendedLifetime(peers) {}
    }

    private final class Notes: UndoLog {
        var steps: [UndoStep] = []
        func note(_ step: UndoStep) { steps.append(step) }
        func done(_ step: UndoStep) { steps.remove(at: steps.lastIndex(of: step)!) }
    }

    /// The migration ended between making it and closing it.
    @Test func aUserfaultfdThatWasNotClosedGoesWithTheOtherTraces() throws {
        var pid: pid_t = 0
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("sleep"), strdup("100"), nil]
        defer { for argument in arguments { free(argument) } }
        try #require(posix_spawn(&pid, "/bin/sleep", nil, nil, &arguments, nil) == 0)
        defer {
            kill(pid, SIGKILL)
            waitpid(pid, nil, __WALL)
        }
        func userfaultfds() throws -> Int {
            try ProcessFiles.descriptors(of: pid).count {
                (try? ProcessFiles.link("/proc/\(pid)/fd/\($0)")) == "anon_inode:[userfaultfd]"
            }
        }
        let notes = Notes(), process = try SourceProcess(pid: pid, undo: notes)
        try process.attach()
        try process.stop(onlyLeader: true)
        _ = try process.openUserfaultfd()
        try process.letGo()
        #expect(try userfaultfds() == 1)
        try process.disarm()
        #expect(try userfaultfds() == 0)
        #expect(notes.steps.isEmpty)
    }
}

// Strangers: whoever is no party of a migration can neither take it over nor ask or acknowledge what became of it.
import Containers
import Foundation
import Glibc
import LinuxKernel
import SwiftProtobuf
import Synchronization
import Testing
@testable import Migration

/// Stands between a source and its destination: cuts the first connection when the destination says that it has
/// released the process, and leads no other one on until it is told to.
private final class CutCable: Sendable {
    let address: String
    private let state = Mutex((connections: 0, isCut: false, isOpen: false))
    private let listener: FileDescriptor

    init(to target: String) throws {
        let (listener, port) = try TwoHosts.listen()
        (self.listener, address) = (listener, "127.0.0.1:\(port)")
        try OwnThread.start("cable") { [self] in
            while let near = try? PeerAddress.accept(on: listener) {
                let number = state.withLock { state in
                    state.connections += 1
                    return state.connections
                }
                try? OwnThread.start("cable") { [self] in
                    while number > 1, !isOpen { usleep(1000) }
                    guard let far = try? PeerAddress(target)!.connect() else { return }
                    try? OwnThread.start("cable") { Self.copy(near, far) }
                    if number == 1 { cutAtRelease(far, near) } else { Self.copy(far, near) }
                }
            }
        }
    }

    var isCut: Bool { state.withLock { $0.isCut } }
    private var isOpen: Bool { state.withLock { $0.isOpen } }
    func open() { state.withLock { $0.isOpen = true } }
    func close() {
        open()
        shutdown(listener.number, Int32(SHUT_RDWR))
    }

    private static func copy(_ from: FileDescriptor, _ to: FileDescriptor) {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let n = read(from.number, &buffer, buffer.count)
            guard n > 0, (try? buffer[..<n].withUnsafeBytes { try to.write($0) }) != nil else { break }
        }
        shutdown(to.number, Int32(SHUT_WR))
    }

    private func cutAtRelease(_ far: FileDescriptor, _ near: FileDescriptor) {
        let stream = ByteSource(far)
        while let header = stream.read(8) {
            let words = header.withUnsafeBytes { $0.load(as: (UInt32, UInt32).self) }
            if words.1 == FrameKind.released.rawValue { break }
            guard let payload = stream.read(Int(words.0)),
                (try? (header + payload).withUnsafeBytes { try near.write($0) }) != nil
            else { break }
        }
        for end in [near, far] { shutdown(end.number, Int32(SHUT_RDWR)) }
        state.withLock { $0.isCut = true }
    }

    private struct ByteSource {
        let file: FileDescriptor
        init(_ file: FileDescriptor) { self.file = file }
        func read(_ count: Int) -> [UInt8]? {
            var bytes = [UInt8](repeating: 0, count: count), have = 0
            while have < count {
                let n = bytes.withUnsafeMutableBytes { Glibc.read(file.number, $0.baseAddress! + have, count - have) }
                if n <= 0 { return nil }
                have += n
            }
            return bytes
        }
    }
}

@Suite(.serialized, .timeLimit(.minutes(2))) struct StrangerTests {
    @Test(.enabled(if: geteuid() == 0)) func aStrangerCannotMakeASecondCopyOfWhatWasReleased() throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run("moved", "dirtier", ["--memory", "8M", "--rate", "100", "--threads", "1"])
        try hosts.waitUntilReady(container)
        let cable = try CutCable(to: hosts.hosts[1].address)
        defer { cable.close() }
        let id = UUID().uuidString
        let offer = try hosts.offer(of: container, id: id) {
            $0.container = "another"
            $0.secret = Data(SessionSecret().bytes)
        }
        // The connection is cut after the promise: the source asks, and nobody hears it.
        let mover = Mutex<Result<RunningContainer, any Error>?>(nil)
        let thread = try OwnThread("mover") {
            let result = Result {
                try hosts.migrate(container, MigrationPlan(technique: .cold), id: id, to: cable.address).1
            }
            mover.withLock { $0 = result }
        }
        for _ in 0..<10_000 where !cable.isCut { usleep(1000) }
        #expect(cable.isCut)
        let journals = hosts.hosts[1].journals
        for _ in 0..<5000 where access("\(journals)/\(id).released", F_OK) != 0 { usleep(1000) }

        // A stranger offers the same migration under another container's name.
        let answer = try hosts.answer(to: offer)
        #expect(
            answer?.kind == .refused && answer?.message.contains("knows a migration \(id) already") == true,
            "\(answer as Any)")
        // It asks, and would acknowledge, without the secret.
        #expect(try Self.ask(hosts.hosts[1].address, id, SessionSecret())?.kind == .refused)
        #expect(Recovery.trace(of: id, in: journals)?.state == .released)
        // So does one at the source, where the migration is known by its journal.
        #expect(try Self.ask(hosts.hosts[0].address, id, SessionSecret())?.kind == .refused)

        cable.open()
        thread.join()
        let moved = try #require(try mover.withLock { $0 }?.get())
        #expect(kill(container.pid, 0) != 0 || isZombie(container.pid), "the source's copy runs, too")
        #expect(try hosts.verdict(moved, on: 1).contains("\"oracle\":\"ok\""))
        for _ in 0..<5000 where Recovery.trace(of: id, in: journals) != nil { usleep(1000) }
        #expect(Recovery.trace(of: id, in: journals) == nil, "what the source has heard is not forgotten")
    }

    /// How an inquiry ends; nil: it was answered.
    private static func ask(_ address: String, _ id: String, _ secret: SessionSecret) throws -> MigrationError? {
        let connection = try Connection(try PeerAddress(address)!.connect(), as: .source)
        connection.limit(seconds: 5)
        try connection.send(
            .inquiry, WireInquiry.with { ($0.migration, $0.secret, $0.container) = (id, Data(secret.bytes), "oracle") })
        do {
            try connection.expect(.verdict, WireVerdict.self)
            return nil
        } catch { return error as? MigrationError }
    }

    // ---- What a host remembers -------------------------------------------------------------------------------

    private func withJournals(_ body: (String, JournalHeader) throws -> Void) throws {
        let folder = "/tmp/apus-test-\(getpid())-\(UInt32.random(in: 0...999_999))"
        try Folder.create(folder)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try body(
            folder,
            JournalHeader(
                migration: "abc", role: .destination, container: "c", pid: 0, startTime: 0, peer: "127.0.0.1:1",
                agent: 1,
                secret: SessionSecret()))
    }

    /// Asks over a pair of sockets; with `acknowledging`, says then that it has heard.
    private func inquire(_ folder: String, _ secret: SessionSecret, acknowledging: Bool = false) throws -> String {
        let (source, destination, _) = try connectedPair()
        try source.send(
            .inquiry,
            WireInquiry.with { ($0.migration, $0.secret, $0.container) = ("abc", Data(secret.bytes), "oracle") })
        let frame = try destination.receive()
        // SAFETY: nobody else uses that end until the thread has been joined.
        nonisolated(unsafe) let answering = destination
        let inquiry = try frame.message(WireInquiry.self)
        let layout = try HostLayout(hostName: "b", stateFolder: folder)
        let thread = try OwnThread("answer") {
            do { try Inquiry.answer(inquiry, over: answering, journals: folder, layout) } catch {
                answering.sendRefusal(MigrationError(error, on: "b"), of: "b")
            }
        }
        defer {
            shutdown(source.descriptor.number, Int32(SHUT_RDWR))
            thread.join()
        }
        let state = try source.expect(.verdict, WireVerdict.self).state
        if acknowledging {
            try source.send(.retired, WireRetired())
            for _ in 0..<2000 where Recovery.remembers("abc", in: folder) { usleep(1000) }
        }
        return state
    }

    @Test func onlyAPartyIsToldAndOnlyItsAcknowledgementCounts() throws {
        try withJournals { folder, header in
            var told = try inquire(folder, SessionSecret())
            #expect(told.isEmpty, "of a migration without a trace everybody is told so")
            Recovery.remember(header, .released, in: folder)
            #expect(throws: MigrationError.self) { try inquire(folder, SessionSecret(), acknowledging: true) }
            #expect(Recovery.remembers("abc", in: folder))
            let secret = try #require(header.secret)
            told = try inquire(folder, secret)
            #expect(told == "released")
            #expect(Recovery.remembers("abc", in: folder), "not acknowledged")
            told = try inquire(folder, secret, acknowledging: true)
            #expect(told == "released")
            #expect(!Recovery.remembers("abc", in: folder))
        }
    }

    @Test func releasedOutranksAborted() throws {
        try withJournals { folder, header in
            Recovery.remember(header, .aborted, in: folder)
            #expect(Recovery.trace(of: "abc", in: folder)?.state == .aborted)
            let journal = try Journal(header, in: folder)
            try journal.state(.releasing)
            #expect(Recovery.trace(of: "abc", in: folder)?.state == .aborted)
            try journal.write(.disarmed)
            #expect(Recovery.trace(of: "abc", in: folder)?.state == .released)
            try journal.settle()
            Recovery.remember(header, .released, in: folder)
            #expect(Recovery.trace(of: "abc", in: folder)?.state == .released)
        }
    }

    @Test func aMarkerAndAJournalKeepTheSecretAndGiveItToNobodyElse() throws {
        try withJournals { folder, header in
            let journal = try Journal(header, in: folder)
            #expect(Recovery.trace(of: "abc", in: folder)?.secret?.matches(header.secret!) == true)
            try journal.settle()
            Recovery.remember(header, .aborted, in: folder)
            #expect(Recovery.trace(of: "abc", in: folder)?.secret?.matches(header.secret!) == true)
            #expect(Recovery.trace(of: "abc", in: folder)?.secret?.matches(SessionSecret()) == false)
        }
    }

    @Test(arguments: ["../x", "", "a/b", "a.b", "a\0", String(repeating: "a", count: 65)])
    func anIdentifierThatIsNoPlainNameIsRefused(_ id: String) throws {
        #expect(throws: MigrationError.self) {
            try Checked(WireInquiry.with { ($0.migration, $0.secret) = (id, Data(SessionSecret().bytes)) })
        }
    }
}

// Sessions: a destination's real dispatch, from the first frame to the release, against a source that may say anything.
// An input is a list of frames (`Frames`). Containers are stubs without a runtime: `scripts/fuzz` gives the program a
// root, PIDs and a network of its own.
import CFuzzer
import CLinux
import Containers
import Foundation
import Glibc
import LinuxKernel
import SwiftProtobuf

@testable import Engine
@testable import Migration

enum Sessions {
    nonisolated(unsafe) private static var host: SessionHost!
    nonisolated(unsafe) private static var ends: [String: Int] = [:]
    private static let container = FuzzRuntime()

    static func prepare() throws {
        var layout = try HostLayout(hostName: "fuzz", stateFolder: "/fuzz/state")
        (layout.runFolder, layout.runtimeRoot) = ("/fuzz/run", "/fuzz/run/runtime")
        try layout.create()
        try Folder.create("/fuzz/run/migrations")
        try Stub.install(at: ContainerConfig.stubPath)
        host = SessionHost(layout: layout, runtime: container, address: "127.0.0.1:1")
    }

    static let run: @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32 = { data, size in
        guard let data, size > 0 else { return 0 }
        do { try session(UnsafeRawBufferPointer(start: data, count: size)) } catch { print("no session: \(error)") }
        return 0
    }

    private static func session(_ input: UnsafeRawBufferPointer) throws {
        // A migration that has ended here, of which its source may ask.
        let known = JournalHeader(
            migration: "known", role: .destination, container: "web", pid: 0, startTime: 0, peer: "127.0.0.1:1",
            agent: 0, secret: SessionSecret(Data(repeating: 7, count: 32)))
        Recovery.remember(known, .released, in: host.journals)
        var sockets: [Int32] = [-1, -1], room: Int32 = 4 << 20
        try checkC(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &sockets), "making a pair of sockets")
        let peer = FileDescriptor(owning: sockets[0])
        setsockopt(peer.number, SOL_SOCKET, SO_SNDBUFFORCE, &room, 4)
        setsockopt(sockets[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, 4)
        let pid = Int32(input.count > 3 ? container.awaited() : 1)
        for (kind, payload) in Frames.split(input) {
            guard Frames.send(kind, named(payload, FrameKind(rawValue: UInt32(kind)), pid), to: peer.number) else {
                break
            }
        }
        let session = try DestinationSession(
            host: host, connection: FileDescriptor(owning: sockets[1]), delegate: Nobody())
        // Asked in the midst of its work, a session must not find that its peer has gone before all is read that came.
        let isOver = Flag()
        let thread = try OwnThread("hanging up") {
            var unread: Int32 = 1
            while unread > 0, !isOver.isSet, clx_ioctl(peer.number, UInt(TIOCOUTQ), &unread) >= 0 { usleep(200) }
            shutdown(peer.number, Int32(SHUT_WR))
        }
        session.run()
        isOver.set()
        thread.join()
        if getenv("APUS_FUZZ_WORDS") != nil { showAnswers(peer) }
        ends[session.connection.state?.rawValue ?? "nothing said", default: 0] += 1
        container.end()
        for name in try Folder.names(host.journals) { unlink("\(host.journals)/\(name)") }
        for directory in try host.layout.containers() { try directory.remove() }
    }

    /// What the session said of its end.
    private static func showAnswers(_ peer: FileDescriptor) {
        var bytes = [UInt8](repeating: 0, count: 4 << 20)
        let count = max(0, recv(peer.number, &bytes, bytes.count, Int32(MSG_DONTWAIT)))
        bytes[..<count].withUnsafeBytes { bytes in
            var at = 0
            while at + 8 <= bytes.count {
                let length = Int(bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self))
                let kind = FrameKind(rawValue: bytes.loadUnaligned(fromByteOffset: at + 4, as: UInt32.self))
                let payload = [UInt8](bytes[(at + 8)..<min(at + 8 + length, bytes.count)])
                switch kind {
                case .refused: print((try? WireRefused(serializedBytes: payload).reasons) ?? [])
                case .abort: print((try? WireAbort(serializedBytes: payload).reason) ?? "")
                default: break
                }
                at += 8 + length
            }
        }
    }

    // ---- Frames ----------------------------------------------------------------------------------------------

    /// Puts the PID that this session's stub has in the place of 1, and this kernel's own mappings in the place of
    /// those of their kinds: no input could guess them.
    private static func named(_ payload: [UInt8], _ kind: FrameKind?, _ pid: Int32) -> [UInt8] {
        func own(_ number: Int32) -> Int32 { number == 1 ? pid : number }
        func own(_ areas: [MemoryArea]) -> [MemoryArea] {
            areas.contains { $0.isSpecial } ? areas.filter { !$0.isSpecial } + specials : areas
        }
        switch kind {
        case .offer:
            return Frames.changed(payload, WireOffer.self) {
                ($0.pid, $0.boot) = (own($0.pid), Frames.own($0.boot))
                // Inputs that were found with earlier versions of the protocol (4 and 5) still reach what they reached.
                if $0.protocolVersion > 3 { $0.protocolVersion = sessionProtocolVersion }
            }
        case .stage:
            return Frames.changed(payload, WireStage.self) {
                for index in $0.processes.indices {
                    $0.processes[index].pid = own($0.processes[index].pid)
                    $0.processes[index].threads = $0.processes[index].threads.map(own)
                }
                for index in $0.spaces.indices { $0.spaces[index].areas = own($0.spaces[index].areas) }
            }
        case .layout: return Frames.changed(payload, WireLayout.self) { $0.space.areas = own($0.space.areas) }
        case .handover:
            return Frames.changed(payload, WireHandover.self) {
                for index in $0.tree.processes.indices {
                    $0.tree.processes[index].pid = own($0.tree.processes[index].pid)
                }
            }
        case .threads:
            return Frames.changed(payload, WireThreads.self) {
                $0.processes = $0.processes.map { process in
                    var process = process
                    process.pid = own(process.pid)
                    for index in process.threads.indices {
                        process.threads[index].tid = own(process.threads[index].tid)
                    }
                    return process
                }
            }
        default: return payload
        }
    }

    /// [vdso] and [vvar], as this program has them.
    private static let specials: [MemoryArea] = {
        guard let reader = try? AddressSpaceReader(pid: getpid()), (try? reader.refresh()) != nil else { return [] }
        return reader.areas.filter { $0.isSpecial && $0.kind != .vsyscall }
    }()

    static func seeds() throws -> [[UInt8]] {
        let area = MemoryArea.with { ($0.start, $0.end, $0.protection) = (0x20000, 0x30000, 3) }
        let vdso = MemoryArea.with { ($0.start, $0.end, $0.kind) = (0x40000, 0x41000, .vdso) }
        // The stub's root has no file of that kind.
        var container = Seeds.offer()
        container.mappedFiles = []
        let offer = try Frames.make(.offer, container)
        var known = container
        known.migration = "known"
        var tree = try Frames.make(.tree, WireTree())
        for piece in FileTreeSender.exampleStream() { tree += Frames.make(.files, piece) }
        let stage = try Frames.make(
            .stage,
            WireStage.with {
                ($0.spaces, $0.processes) = ([Seeds.space([area, vdso])], [Seeds.outline()])
                $0.log = Data("begun\n".utf8)
            })
        let pages = Frames.make(.pages, Seeds.words([0, 1, 0x20000, 1 << 1]) + [UInt8](repeating: 7, count: 4096))
        let copy =
            try Frames.make(.passEnd, WirePassEnd.with { $0.number = 1 }) + pages
            + Frames.make(.discard, Seeds.words([0, 0x20000, 0x22000]))
            + Frames.make(.clockProbe, WireClockProbe())
            + Frames.make(.layout, WireLayout.with { $0.space = Seeds.space([area, vdso]) })
        let frozen = try Frames.make(.frozen, WireFrozen())
        let thawed = try Frames.make(.thawed, WireFrozen())
        let handover =
            try Frames.make(.handover, WireHandover.with { $0.tree = Self.tree() })
            + Frames.make(.threads, WireThreads.with { $0.processes = [Self.threads()] })
        let promise = try Frames.make(.promise, WirePromise()), retired = try Frames.make(.retired, WireRetired())
        let probe = try Frames.make(.clockProbe, WireClockProbe())
        let abort = try Frames.make(.abort, WireAbort.with { $0.reason = "no" })
        // The temporary file system, and what has changed of both: nothing, but said.
        var temporary = try Frames.make(.tree, WireTree.with { $0.tree = 1 })
        for piece in FileTreeSender.emptyStream() { temporary += Frames.make(.files, piece) }
        let changes = try (0...1).flatMap { tree in
            try Frames.make(.tree, WireTree.with { ($0.tree, $0.changes) = (tree, true) })
                + Frames.make(.files, FileTreeSender.exampleChanges())
        }
        let staged = offer + probe + tree + stage, copied = staged + temporary + probe + copy + changes
        let rest =
            try changes + Frames.make(.layout, WireLayout.with { $0.space = Seeds.space([area, vdso]) }) + pages
            + Frames.make(.discard, Seeds.words([0, 0x20000, 0x22000]))
        let whole =
            copied + frozen + rest + handover + pages + Frames.make(.discard, Seeds.words([0, 0x22000, 0x24000]))
        return [
            offer, offer + tree, staged, copied + frozen + thawed + copy,
            whole + thawed + stage + copy + frozen + handover + promise + retired, whole + promise + retired,
            try Frames.make(.inquiry, Seeds.inquiry()) + retired,
            try Frames.make(.inquiry, Seeds.inquiry("known")) + retired,
            try Frames.make(.inquiry, Seeds.inquiry("known", secret: 8)) + retired,
            try Frames.make(.offer, known), offer + abort, staged + abort,
            staged + temporary + frozen + handover + promise + retired, copied + abort, copied + frozen + abort,
            whole + abort, whole + promise + abort,
        ]
    }

    /// What a stub can become: no file that is not there, no socket.
    private static func tree() -> TreeImage {
        var tree = Seeds.tree()
        let space = AddressSpace.with {
            $0.executable = ContainerConfig.stubPath
            ($0.startCode, $0.endCode, $0.startData, $0.endData) = (0x20000, 0x21000, 0x21000, 0x22000)
            ($0.startBrk, $0.brk, $0.startStack) = (0x30000, 0x30000, 0x2f000)
            ($0.argStart, $0.argEnd, $0.envStart, $0.envEnd) = (0x2f000, 0x2f010, 0x2f010, 0x2f020)
        }
        tree.spaces = [space]
        tree.files = tree.files.filter {
            switch $0.kind {
            case .pipe, .event: true
            default: false
            }
        }
        // A pipe has both ends.
        tree.files.append(OpenFile.with { $0.pipe.writeEnd = true })
        tree.tables[0].descriptors = tree.files.indices.map { index in
            Descriptor.with { ($0.number, $0.file) = (Int32(index) + 3, UInt32(index)) }
        }
        return tree
    }

    private static func threads() -> ProcessThreads {
        var process = Seeds.threads(), registers = user_regs_struct()
        (registers.rip, registers.rsp, registers.cs, registers.ss) = (0x20000, 0x2f000, 0x33, 0x2b)
        process.threads[0].registers = withUnsafeBytes(of: registers) { Data($0) }
        // Longer than any processor's.
        process.threads[0].xstate = Data(count: 16384)
        return process
    }

    static func finish() {
        container.end()
        print("sessions: \(ends.values.reduce(0, +)), by the state in which they ended:")
        for (state, count) in ends.sorted(by: { $0.value > $1.value }) { print("  \(state): \(count)") }
        print("stubs: \(container.made) made, \(container.released) of them let go")
        Handled.show(from: .source)
        Handled.requirePromises(of: ends.values.reduce(0, +))
    }
}

/// Takes everything.
private final class Nobody: DestinationDelegate {
    func willReceive(migration: String, container: String, from host: String, plan: MigrationPlan) -> MigrationControl {
        MigrationControl()
    }
    func didReceive(migration: String, _ container: RunningContainer, from host: String) {
        FuzzRuntime.noteRelease()
    }
    /// With APUS_FUZZ_WORDS set it says how each session ended.
    func didFail(migration: String, _ error: any Error) {
        if getenv("APUS_FUZZ_WORDS") != nil { print("ended: \(error)") }
    }
}

/// Makes a stub instead of a container: in the program's own namespaces. Used by one thread.
final class FuzzRuntime: ContainerRuntime {
    /// Of the stub that there is; 0: none.
    nonisolated(unsafe) private static var pid: Int32 = 0
    /// The PID that this session's stubs have, as the first process of a container always has the same.
    nonisolated(unsafe) private static var number: Int32 = 0
    nonisolated(unsafe) private static var count = 0, releases = 0
    var made: Int { Self.count }
    var released: Int { Self.releases }
    static func noteRelease() { releases += 1 }

    /// The stub of the next session.
    func awaited() -> Int32 {
        if Self.pid == 0 { Self.pid = start(0) }
        Self.number = Self.pid
        return Self.pid
    }
    private func start(_ number: Int32) -> Int32 {
        Self.count += 1
        return max(0, fuzz_spawn(ContainerConfig.stubPath, -1, -1, number))
    }
    /// The session is over: a stub that it has used goes.
    func end() {
        if !Self.isUsed { return }
        Self.isUsed = false
        if Self.pid == 0 { return }
        Glibc.kill(Self.pid, SIGKILL)
        waitpid(Self.pid, nil, 0)
        Self.pid = 0
    }
    nonisolated(unsafe) private static var isUsed = false

    var kind: String { "runc" }
    func version() throws(RuntimeError) -> String { "1.1" }
    func create(_ name: String, bundle: String, log: String) throws(RuntimeError) -> Int32 {
        if Self.isUsed { end() }
        Self.isUsed = true
        if Self.pid == 0 { Self.pid = start(Self.number) }
        return Self.pid
    }
    func start(_ name: String) throws(RuntimeError) {}
    func state(_ name: String) throws(RuntimeError) -> ContainerState? { nil }
    func kill(_ name: String, signal: Int32) throws(RuntimeError) {}
    func delete(_ name: String, force: Bool) throws(RuntimeError) { end() }
    func list() throws(RuntimeError) -> [ContainerState] { [] }
}

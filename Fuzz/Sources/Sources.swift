// Sessions of a source: the real one, with a real process under its hands, against a destination that may say anything.
// The first byte of an input chooses the plan, the rest is the destination's script (`ScriptedDestination`).
import Containers
import Foundation
import Glibc
import LinuxKernel

@testable import Migration

enum Sources {
    nonisolated(unsafe) private static var host: SessionHost!
    nonisolated(unsafe) private static var container: FuzzContainer!
    nonisolated(unsafe) private static var ends: [String: Int] = [:]
    nonisolated(unsafe) private static var count = 0, descriptors = 0, repairs = 0
    /// Where a source asks that is in doubt.
    private static let address = "127.0.0.1:7700"

    static func prepare() throws {
        var layout = try HostLayout(hostName: "fuzz", stateFolder: "/fuzz/state")
        (layout.runFolder, layout.runtimeRoot) = ("/fuzz/run", "/fuzz/run/runtime")
        // "0::/path": scripts/fuzz has made a cgroup for this program.
        let own = try SmallFile.text("/proc/self/cgroup").split(separator: "\n").first { $0.hasPrefix("0::") }
        layout.cgroupParent = String((own ?? "0::/").dropFirst(3))
        try layout.create()
        try Folder.create("/fuzz/run/migrations")
        host = SessionHost(layout: layout, runtime: NoRuntime(), address: "127.0.0.1:1")
        host.log = { words in if getenv("APUS_FUZZ_WORDS") != nil { print(words) } }
        container = try FuzzContainer(host)
        let route = try NetlinkSocket()
        for link in try route.links() where link.name == "lo" { try route.setUp(link.index) }
    }

    static let run: @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32 = { data, size in
        guard let data, size > 0 else { return 0 }
        do { try session(UnsafeRawBufferPointer(start: data, count: size)) } catch {
            fatalError("no session: \(error)")
        }
        return 0
    }

    private static func session(_ input: UnsafeRawBufferPointer) throws {
        let choice = input[0], control = MigrationControl(), running = try container.running()
        let script = Frames.split(UnsafeRawBufferPointer(rebasing: input[1...])).map {
            ($0.kind, own($0.payload, $0.kind))
        }
        var sockets: [Int32] = [-1, -1], room: Int32 = 4 << 20
        try checkC(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &sockets), "making a pair of sockets")
        for socket in sockets { setsockopt(socket, SOL_SOCKET, SO_SNDBUFFORCE, &room, 4) }
        let end = FileDescriptor(owning: sockets[0]), number = sockets[1]
        let listener = try PeerAddress(address)!.listen()

        let isOver = Flag()
        // SAFETY: used by its thread alone until that has been joined.
        nonisolated(unsafe) let peer = ScriptedDestination(
            script, control, choice & 16 == 0 ? .source : .destination, patience: choice & 8 == 0 ? 60 : 300)
        let thread = try OwnThread("destination") { peer.run(end, listener, until: isOver) }
        let (state, error) = try OwnThread.run("source") {
            let session = SourceSession(
                id: "abc", container: running, host: host, destination: address, plan: plan(choice), control: control,
                connection: FileDescriptor(owning: number))
            session.patience = 1
            do {
                _ = try session.run()
                return (session.state, nil as (any Error)?)
            } catch { return (session.state, error) }
        }.get()
        isOver.set()
        thread.join()
        if getenv("APUS_FUZZ_WORDS") != nil { print("ended \(state): \(error.map { "\($0)" } ?? "no error")") }
        Self.ends[name(state, peer.sawPromise), default: 0] += 1
        try check(state, promised: peer.sawPromise, "\(error.map { "\($0)" } ?? ""); \(control.progress.remark ?? "")")
    }

    private static func name(_ state: SessionState, _ promised: Bool) -> String {
        promised ? "\(state.rawValue) after the promise" : state.rawValue
    }

    /// What holds however a session ends. Whatever does not is the fuzzer's find.
    private static func check(_ state: SessionState, promised: Bool, _ words: String) throws {
        if state == .aborted { try repair() }
        let journals = try Folder.names(host.journals)
        guard journals.isEmpty else { fatalError("a session that is \(state) has left \(journals): \(words)") }
        switch state {
        case .aborted:
            let changes = container.changes()
            if !changes.isEmpty { fatalError("a source that runs on is not as it was: \(changes)") }
        case .retired:
            guard promised else { fatalError("a source has ended its copy without a promise") }
            let remains = container.remains()
            if !remains.isEmpty { fatalError("a source that has ended its copy has left something: \(remains)") }
        default: fatalError("a session ended \(state)")
        }
        // A session keeps nothing open; the first ones fill caches.
        count += 1
        let open = try ProcessFiles.descriptors(of: getpid()).count
        if count == 100 { descriptors = open }
        if count > 100, open > descriptors + 8 { fatalError("\(open) descriptors are open, \(descriptors) were") }
    }

    /// A process that does not stop in time, where others take the processors, is for the guard to put right once the
    /// session's thread has ended. There is none here, so this does what it does.
    private static func repair() throws {
        for _ in 0..<50 {
            guard let journal = OpenJournal(path: "\(host.journals)/abc.source") else { return }
            do {
                _ = try Repair.source(journal, host)
                repairs += 1
            } catch { usleep(100_000) }
        }
    }

    private static func plan(_ choice: UInt8) -> MigrationPlan {
        let techniques: [Technique] = [.cold, .preCopy, .migrror, .migrror]
        var plan = MigrationPlan(technique: techniques[Int(choice & 3)])
        plan.events = choice & 3 == 3 ? .auto : .scan
        plan.handover = choice & 4 == 0 ? .whenReady : .atTrigger
        (plan.freezeLimit, plan.postponeLimit) = choice & 8 == 0 ? (nil, 0) : (15, 0.15)
        plan.maxRounds = 3
        return plan
    }

    private static func own(_ payload: [UInt8], _ kind: UInt8) -> [UInt8] {
        switch FrameKind(rawValue: UInt32(kind)) {
        case .accepted: Frames.changed(payload, WireAccepted.self) { $0.boot = Frames.own($0.boot) }
        case .verdict: Frames.changed(payload, WireVerdict.self) { $0.boot = Frames.own($0.boot) }
        default: payload
        }
    }

    static func finish() {
        container.end()
        print("sessions: \(ends.values.reduce(0, +)), by the state in which they ended:")
        for (state, count) in ends.sorted(by: { $0.value > $1.value }) { print("  \(state): \(count)") }
        print("processes: \(container.made) made, \(repairs) put right as a guard does")
        Handled.show(from: .destination)
    }
}

/// There is no container behind the process.
private struct NoRuntime: ContainerRuntime {
    var kind: String { "runc" }
    func version() throws(RuntimeError) -> String { "1.1" }
    func create(_ name: String, bundle: String, log: String) throws(RuntimeError) -> Int32 { 0 }
    func start(_ name: String) throws(RuntimeError) {}
    func state(_ name: String) throws(RuntimeError) -> ContainerState? { nil }
    func kill(_ name: String, signal: Int32) throws(RuntimeError) {}
    func delete(_ name: String, force: Bool) throws(RuntimeError) {}
    func list() throws(RuntimeError) -> [ContainerState] { [] }
}

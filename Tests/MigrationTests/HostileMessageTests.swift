// Messages that a hostile peer may send: each is refused as a violation, none ends the agent or takes its memory.
import Engine
import Foundation
import Glibc
import LinuxKernel
import SwiftProtobuf
import Testing
@testable import Migration

private let edges: [Int64] = [.min, .min + 1, -1, .max, .max - 1]

@Suite(.timeLimit(.minutes(1))) struct HostileMessageTests {
    private func refuses(_ what: String, _ body: () throws -> Void) {
        #expect(throws: (any Error).self, "\(what) was taken", performing: body)
    }

    // ---- Layouts ---------------------------------------------------------------------------------------------

    private func area(_ start: UInt64, _ end: UInt64, _ change: (inout MemoryArea) -> Void = { _ in }) -> MemoryArea {
        var area = MemoryArea()
        (area.start, area.end, area.protection) = (start, end, 3)
        change(&area)
        return area
    }

    @Test func aLayoutThatCannotBeIsRefused() throws {
        _ = try CheckedLayout([area(0x1000, 0x2000), area(0x2000, 0x3000)])
        refuses("a range that ends before it begins") { _ = try CheckedLayout([area(0x2000, 0x1000)]) }
        refuses("an empty range") { _ = try CheckedLayout([area(0x2000, 0x2000)]) }
        refuses("overlapping ranges") { _ = try CheckedLayout([area(0x1000, 0x3000), area(0x2000, 0x4000)]) }
        refuses("ranges out of order") { _ = try CheckedLayout([area(0x3000, 0x4000), area(0x1000, 0x2000)]) }
        refuses("half a page") { _ = try CheckedLayout([area(0x1000, 0x1800)]) }
        refuses("the kernel's half") { _ = try CheckedLayout([area(0x1000, UInt64.max - 0xfff)]) }
        refuses("an offset near 2^64") {
            _ = try CheckedLayout([
                area(0x1000, 0x9000) { ($0.kind, $0.path, $0.offset) = (.privateFile, "/a", ~0xfff) }
            ])
        }
        refuses("a file without a path") { _ = try CheckedLayout([area(0x1000, 0x2000) { $0.kind = .privateFile }]) }
        refuses("a kind of its own") { _ = try CheckedLayout([area(0x1000, 0x2000) { $0.kind = .UNRECOGNIZED(99) }]) }
    }

    // ---- Images ----------------------------------------------------------------------------------------------

    /// A process in the first address space and with the first descriptor table of its tree.
    static func process(_ pid: Int32 = 1) -> ProcessImage {
        ProcessImage.with {
            $0.pid = pid
            $0.settings.workingDirectory = Data("/".utf8)
            $0.signals.actions = Data(count: 2048)
        }
    }

    /// One thread.
    static func threads(_ pid: Int32 = 1) -> ProcessThreads {
        var process = ProcessThreads(), thread = ThreadImage()
        process.pid = pid
        thread.tid = pid
        thread.registers = Data(count: MemoryLayout<user_regs_struct>.size)
        thread.xstate = Data(count: 2432)
        thread.credentials.uid = [0, 0, 0, 0]
        thread.credentials.gid = [0, 0, 0, 0]
        process.threads = [thread]
        return process
    }

    static func tree() -> TreeImage {
        var tree = TreeImage(), space = AddressSpace(), file = OpenFile(), table = DescriptorTableImage()
        tree.version = TreeImage.currentVersion
        space.executable = "/program"
        file.path.path = "/file"
        table.descriptors = [Descriptor.with { $0.number = 3 }]
        (tree.processes, tree.spaces, tree.files, tree.tables) = ([process()], [space], [file], [table])
        return tree
    }

    @Test func anImageThatCannotBeIsRefused() throws {
        _ = try CheckedTree(Self.tree())
        func refused(_ what: String, _ change: (inout TreeImage) -> Void) {
            var tree = Self.tree()
            change(&tree)
            refuses(what) { _ = try CheckedTree(tree) }
        }
        func refusedProcess(_ what: String, _ change: (inout ProcessImage) -> Void) {
            refused(what) { change(&$0.processes[0]) }
        }
        refusedProcess("short actions") { $0.signals.actions = Data(count: 31) }
        refusedProcess("odd limits") { $0.settings.limits = [1, 2, 3] }
        refused("a descriptor without its file") { $0.tables[0].descriptors[0].file = 7 }
        refused("descriptor 2^31-1") { $0.tables[0].descriptors[0].number = .max }
        refused("a negative descriptor") { $0.tables[0].descriptors[0].number = -1 }
        refused("two descriptors of one number") { $0.tables[0].descriptors.append($0.tables[0].descriptors[0]) }
        refused("a file of no kind") { $0.files[0].kind = nil }
        refused("a path with a zero") { $0.files[0].path.path = "/a\0b" }
        refused("packets longer than the pipe's content") {
            var end = PipeEnd()
            (end.capacity, end.content, end.packets) = (65536, Data(count: 4), [.max, .max])
            $0.files[0].pipe = end
        }
    }

    @Test func aTreeWhoseReferencesLeadNowhereIsRefused() throws {
        var tree = Self.tree()
        tree.processes = [Self.process(), Self.process(7)]
        _ = try CheckedTree(tree)
        func refused(_ what: String, _ change: (inout TreeImage) -> Void) {
            var changed = tree
            change(&changed)
            refuses(what) { _ = try CheckedTree(changed) }
        }
        refused("no processes") { $0.processes = [] }
        refused("an address space that is not there") { $0.processes[1].space = 1 }
        refused("a descriptor table that is not there") { $0.processes[1].table = .max }
        refused("an address space of nobody") { $0.spaces.append($0.spaces[0]) }
        refused("a descriptor table of nobody") { $0.tables.append($0.tables[0]) }
        refused("two processes of one PID") { $0.processes[1] = $0.processes[0] }
        refused("an epoll set that watches nothing") { tree in
            tree.files.append(OpenFile.with { $0.epoll.watches = [EpollSet.Watch.with { $0.file = 9 }] })
        }
    }

    @Test func threadsThatCannotBeAreRefused() throws {
        var tree = Self.tree()
        tree.processes.append(Self.process(7))
        let checked = try CheckedTree(tree), threads = [Self.threads(1), Self.threads(7)]
        #expect(!checked.hasThreads)
        var complete = checked
        try complete.add(threads)
        #expect(complete.hasThreads)
        refuses("threads that come twice") { try complete.add(threads) }
        func refused(_ what: String, _ change: (inout [ProcessThreads]) -> Void) {
            var changed = threads, tree = checked
            change(&changed)
            refuses(what) { try tree.add(changed) }
        }
        refused("none at all") { $0 = [] }
        refused("those of one process of two") { $0.removeLast() }
        refused("those of another process") { $0[1].pid = 8 }
        refused("a process without threads") { $0[0].threads = [] }
        refused("threads without the first") { $0[0].threads[0].tid = 9 }
        refused("two threads of one TID") { $0[0].threads.append($0[0].threads[0]) }
        refused("a thread of two processes") { $0[1].threads.append($0[0].threads[0]) }
        refused("a negative TID") { threads in
            threads[0].threads.append(threads[0].threads[0])
            threads[0].threads[1].tid = -1
        }
        refused("short registers") { $0[0].threads[0].registers = Data(count: 8) }
        refused("short register state") { $0[0].threads[0].xstate = Data(count: 8) }
        refused("three user IDs") { $0[0].threads[0].credentials.uid = [0, 0, 0] }
        refused("no group IDs") { $0[0].threads[0].credentials.gid = [] }
        refused("a signal of two bytes") { $0[0].threads[0].pending = [Data(count: 2)] }
        refused("signal 0") { $0[0].pending = [Data(count: 128)] }
        for edge in edges where edge < 0 {
            refused("a timer of \(edge) ns") {
                $0[0].timers.posix = [PosixTimer.with { timer in timer.remainingNs = edge }]
            }
            refused("a timer every \(edge) ns") {
                $0[0].timers.posix = [PosixTimer.with { timer in timer.intervalNs = edge }]
            }
        }
        let late = LateSignals(ofThreads: [7: []])
        try complete.check([7: late])
        refuses("signals for no process") { try complete.check([8: LateSignals()]) }
        refuses("signals for another's thread") { try complete.check([1: late]) }
    }

    @Test func connectionsAndDatagramsThatCannotBeAreRefused() throws {
        var tree = Self.tree()
        var connection = TCPConnection(), socket = UDPEndpoint()
        (connection.family, socket.family) = (AF_INET, AF_INET)
        tree.files.append(OpenFile.with { $0.tcp = connection })
        tree.files.append(OpenFile.with { $0.udp = socket })
        let address = Data([2, 0]) + Data(count: 14)
        (connection.local, connection.remote, connection.window) = (address, address, Data(count: 20))
        var checked = try CheckedTree(tree)
        try checked.complete([1: LateState.with { $0.tcp = connection }])

        func refused(_ what: String, _ index: UInt32 = 1, _ change: (inout TCPConnection) -> Void) {
            var connection = connection
            change(&connection)
            refuses(what) { try checked.complete([index: LateState.with { $0.tcp = connection }]) }
        }
        refused("a connection of a file", 0) { _ in }
        refused("a connection of no file", .max) { _ in }
        refused("another family") { $0.family = AF_INET6 }
        refused("a short address") { $0.local = Data(count: 3) }
        refused("a short window") { $0.window = Data(count: 19) }
        refused("more unsent than there is") { $0.unsent = .max }
        refused("a window's scale of 255") { $0.sendWindowScale = 255 }

        var datagram = Datagram()
        (datagram.source, datagram.content) = (address, Data(count: 65528))
        refuses("a datagram longer than a packet") {
            try checked.complete([2: LateState.with { $0.datagrams.datagrams = [datagram] }])
        }
        (datagram.source, datagram.content) = (Data(), Data(count: 1))
        refuses("a datagram from nowhere") {
            try checked.complete([2: LateState.with { $0.datagrams.datagrams = [datagram] }])
        }
    }

    // ---- What a destination answers --------------------------------------------------------------------------

    @Test func clocksAndPassesOutOfRangeAreRefused() {
        for edge in edges {
            refuses("a clock of \(edge)") { _ = try Checked(WireClockProbe.with { $0.answered = edge }) }
            refuses("a boottime of \(edge)") { _ = try Checked(WireClockProbe.with { $0.answeredBoottime = edge }) }
            refuses("a pass of \(edge)") { _ = try Checked(WirePassApplied.with { $0.began = edge }) }
            refuses("a release at \(edge)") { _ = try Checked(WireReleased.with { $0.at = edge }) }
            refuses("a step of \(edge)") {
                _ = try Checked(WireReleased.with { $0.steps = [WireStep.with { $0.duration = edge }] })
            }
        }
    }

    @Test func aStageThatCannotBeIsRefused() throws {
        var stage = WireStage()
        stage.spaces = [WireSpaceLayout.with { $0.memory = 5 }]
        stage.processes = [WireProcessOutline.with { ($0.pid, $0.threads, $0.memory) = (1, [1, 2], 5) }]
        _ = try Checked(stage)
        func refused(_ what: String, _ change: (inout WireStage) -> Void) {
            var changed = stage
            change(&changed)
            refuses(what) { _ = try Checked(changed) }
        }
        for edge in edges where edge != -1 {
            refused("clocks that differ by \(edge)") { $0.clocks.monotonic = edge }
        }
        refused("no processes") { $0.processes = [] }
        refused("a thread of TID -1") { $0.processes[0].threads.append(-1) }
        refused("a process without its first thread") { $0.processes[0].threads = [2] }
        refused("a process without its memory") { $0.processes[0].memory = 6 }
        refused("two layouts of one memory") { $0.spaces.append($0.spaces[0]) }
        refused("a thread of two processes") { stage in
            stage.processes.append(WireProcessOutline.with { ($0.pid, $0.threads, $0.memory) = (2, [2], 5) })
        }
    }

    // ---- Memory ----------------------------------------------------------------------------------------------

    /// What a frame's bytes do at the other end; nil: it was read.
    private func receive(_ kind: FrameKind, _ bytes: [UInt8], as message: (Migration.Frame) throws -> Void) throws
        -> String?
    {
        let (source, destination, _) = try connectedPair()
        let path: [(Side, FrameKind)] =
            kind == .released
            ? [
                (.source, .offer), (.destination, .accepted), (.destination, .staged), (.source, .frozen),
                (.source, .handover), (.source, .promise),
            ] : [(.source, .offer)]
        for (sender, kind) in path {
            try (sender == .source ? source : destination).send(kind, UnsafeRawBufferPointer(start: nil, count: 0))
            _ = try (sender == .source ? destination : source).receive()
        }
        // SAFETY: nobody else uses that end until the thread has been joined.
        nonisolated(unsafe) let sender = destination
        let thread = try OwnThread("sender") { bytes.withUnsafeBytes { _ = try? sender.send(kind, $0) } }
        defer { thread.join() }
        do {
            try message(try source.receive())
            return nil
        } catch { return "\(error)" }
    }

    @Test func aRefusalOfAHundredKilobytesIsNotKept() throws {
        let refusal: [UInt8] = try WireRefused.with { $0.reasons = [String(repeating: "x", count: 50 << 10)] }
            .serializedBytes()
        let words = try receive(.refused, refusal) { _ = try $0.message(WireRefused.self) }
        #expect(words?.contains("a reason of 51200 bytes") == true, "\(words ?? "taken")")
        let long = [UInt8](repeating: 0, count: 100 << 10)
        var header = (UInt32(long.count).littleEndian, FrameKind.refused.rawValue.littleEndian)
        let (source, destination, descriptors) = try connectedPair()
        try source.send(.offer, UnsafeRawBufferPointer(start: nil, count: 0))
        _ = try destination.receive()
        try withUnsafeBytes(of: &header) { try descriptors[1].write($0) }
        #expect(throws: MigrationError.self) { try source.receive() }
    }

    @Test func aReleaseWithMoreStepsThanItCanHaveIsRefused() throws {
        // Two bytes each: an empty step.
        let steps = [UInt8]((0..<120_000).flatMap { _ in [0x12, 0] as [UInt8] })
        let words = try receive(.released, steps) { frame in
            #expect(try WireReleased.shape.weight(of: frame.payload) > 64 << 20)
            _ = try frame.message(WireReleased.self)
        }
        #expect(words?.contains("120000 steps") == true, "\(words ?? "taken")")
    }

    @Test func tinyThreadsOfALongImageAreCountedByWhatTheyTake() throws {
        // WireThreads.processes (1) with empty threads (2) of two bytes: of a frame's 256 MiB they would make a hundred
        // GiB.
        func field(_ number: UInt8, _ content: [UInt8]) -> [UInt8] {
            var bytes = [number << 3 | 2], length = UInt64(content.count)
            while length >= 0x80 {
                bytes.append(UInt8(length & 0x7f) | 0x80)
                length >>= 7
            }
            return bytes + [UInt8(length)] + content
        }
        let threads = [UInt16](repeating: 0x0012, count: 1_100_000).withUnsafeBytes { Array($0) }
        let bytes = field(1, threads)
        let weight = try bytes.withUnsafeBytes { try WireThreads.shape.weight(of: $0) }
        #expect(weight > SessionBounds.ofOneSession)
    }

    @Test func aRealImageWeighsLittleMoreThanItTakes() throws {
        var process = Self.threads()
        let first = process.threads[0]
        process.threads = (1...2000).map { tid in
            var thread = first
            thread.tid = Int32(tid)
            return thread
        }
        let bytes: [UInt8] = try WireThreads.with { $0.processes = [process] }.serializedBytes()
        let weight = try bytes.withUnsafeBytes { try WireThreads.shape.weight(of: $0) }
        #expect(weight > bytes.count && weight < 2 * bytes.count)
    }

    @Test func memoryOfAllSessionsHasALimitAndComesBack() throws {
        let bounds = SessionBounds(sessions: 2, bytes: 100)
        try bounds.take(60)
        #expect(throws: MigrationError.self) { try bounds.take(41) }
        bounds.give(60)
        try bounds.take(100)
        var places = [try bounds.enter(), try bounds.enter()]
        #expect(throws: MigrationError.self) { try bounds.enter() }
        places.removeLast()
        _ = try bounds.enter()
    }

    @Test func bytesThatAreNoMessageAreRefusedByTheirWeight() {
        for bytes: [UInt8] in [[0x0a], [0x0a, 0x05, 1], [0x80, 0x80], [0x0b], [UInt8](repeating: 0xff, count: 12)] {
            #expect(throws: MigrationError.self) { try bytes.withUnsafeBytes { try WireHandover.shape.weight(of: $0) } }
        }
    }
}

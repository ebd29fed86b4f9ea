// The destination's process while it is no program yet: traced from its first touch, killed with its engine until it
// is released, and turned step by step into the process that moves.
import CLinux
import Glibc
import LinuxKernel
import Memory

/// A stub on its way to become the migrated process. All calls belong on one thread.
public final class StubProcess: PageSink {
    /// PID on this host.
    public let pid: Int32
    public let memory: ProcessMemory
    let pidfd: FileDescriptor
    private let leader: Tracee
    private(set) var area: InjectionArea!
    /// The layout as staged.
    public private(set) var layout: [MemoryArea] = []
    /// Capabilities that its threads can have: those made later inherit it.
    private(set) var boundingSet: UInt64 = 0
    /// What `protectShared` has to do.
    private var protections: [LayoutStep] = []
    /// Threads by their TID in the container's PID namespace; the leader is there from the start.
    private(set) var threads: [Int32: Tracee] = [:]
    /// Threads in the order in which they were attached.
    private var attached: [Tracee] = []
    private var vdsoSystemCall: UInt64 = 0
    private let bareRegisters: user_regs_struct

    /// Seizes the stub: it dies with this engine until `release`.
    public init(pid: Int32) throws {
        self.pid = pid
        pidfd = FileDescriptor(owning: try check(clx_pidfd_open(pid, 0), "opening pid \(pid)"))
        leader = try Tracee.seize(pid, Self.traced)
        try leader.interrupt()
        guard try leader.wait().isTracers else {
            throw EngineError.unexpectedStop(task: pid, doing: "seizing the stub", stop: "not an interrupt")
        }
        memory = try ProcessMemory(pid: pid)
        bareRegisters = try leader.registers()
        try leader.setSignalMask(SourceProcess.allButTrap)
        guard let tid = try ProcessStatus(pid: pid).numbers("NSpid").last else {
            throw EngineError.invalidImage("the stub's PID in its namespace is unknown")
        }
        threads[Int32(tid)] = leader
        attached = [leader]
    }

    private static let traced: Tracee.Options = [.systemCallGood, .clone, .exitKill, .suspendSeccomp]

    // ---- Address space -------------------------------------------------------------------------------------

    /// Empties the address space and moves the kernel's mappings to where the source has them.
    public func prepare(for areas: [MemoryArea]) throws {
        let own = try currentMaps()
        guard let vdso = own.first(where: { $0.name == "[vdso]" }) else {
            throw EngineError.invalidImage("the stub has no vDSO")
        }
        vdsoSystemCall = try findSystemCall(in: vdso.range)
        try placeArea(avoiding: areas.map(\.range) + own.map(\.range))

        var batch = CallBatch()
        for entry in own where !entry.name.hasPrefix("[v") {
            batch.call(
                .munmap, .int(entry.range.lowerBound), .int(entry.range.count),
                doing: "unmapping the stub's \(entry.name)")
        }
        // Each special mapping goes to a place that is free in both layouts first: the targets may overlap.
        let moving = areas.filter { $0.kind == .vdso || $0.kind == .vvar }
        let specials = own.filter { $0.name.hasPrefix("[v") && $0.name != "[vsyscall]" }
        guard moving.map(\.name).sorted() == specials.map(\.name).sorted() else {
            throw EngineError.invalidImage("this kernel's vDSO mappings differ from the source's")
        }
        var refuge = hole(of: 1 << 20, avoiding: areas.map(\.range) + own.map(\.range) + [area.range])
        var moves: [(UInt64, MemoryArea)] = []
        for entry in specials {
            guard let target = moving.first(where: { $0.name == entry.name }), target.range.count == entry.range.count
            else {
                throw EngineError.invalidImage("this kernel's \(entry.name) has another size than the source's")
            }
            batch.move(entry.range, to: refuge, entry.name)
            moves.append((refuge, target))
            refuge += UInt64(entry.range.count)
            if entry.name == "[vdso]" { vdsoSystemCall = vdsoSystemCall - entry.range.lowerBound + target.start }
        }
        for (from, target) in moves {
            batch.move(from..<from + UInt64(target.range.count), to: target.start, target.name)
        }
        _ = try run(batch)
        layout = areas.filter(\.isSpecial)
    }

    /// Gives the stub clocks of its own, by a time namespace, which only a process of one thread may enter.
    public func setClocks(_ offsets: Clocks) throws {
        let newTime: CallBatch.Argument = .value(0x80)  // CLONE_NEWTIME
        var batch = CallBatch()
        batch.call(.unshare, newTime, doing: "making a time namespace")
        _ = try run(batch)
        try offsets.set(forChildrenOf: pid)
        batch = CallBatch()
        // Only its own /proc leads there, so the container needs one.
        let path = batch.string("/proc/self/ns/time_for_children")
        let file = batch.call(
            .open, .address(path), .value(0o2000000), doing: "opening the time namespace in its /proc")
        batch.call(.setns, .result(file), newTime, doing: "entering the time namespace")
        batch.call(.close, .result(file), doing: "closing the time namespace")
        _ = try run(batch)
    }

    /// Changes the layout; memory that stays keeps its content.
    public func change(to layout: CheckedLayout) throws {
        var areas = layout.areas
        if areas.contains(where: { $0.range.overlaps(area.range) }) { try moveArea(avoiding: areas) }
        // Nobody, not even a tracer, can write into a shared mapping that is read-only: it becomes so at the end.
        protections = areas.filter { $0.kind == .sharedAnonymous && $0.protection != 3 }.map {
            LayoutStep.protect($0.range, $0.protection)
        }
        for index in areas.indices where areas[index].kind == .sharedAnonymous { areas[index].protection = 3 }
        let (steps, assembled) = AddressSpacePlan.plan(from: self.layout, to: areas)
        for start in stride(from: 0, to: steps.count, by: 500) {
            _ = try run(AddressSpacePlan.batch(for: steps[start..<min(start + 500, steps.count)]))
        }
        self.layout = areas
        try join(assembled)
    }

    /// Gives shared memory the protection it has at the source. All pages are in place.
    func protectShared() throws {
        if !protections.isEmpty { _ = try run(AddressSpacePlan.batch(for: protections)) }
    }

    public func write(_ ranges: [AddressRange], from buffer: UnsafeRawBufferPointer) throws -> Bool {
        try memory.write(ranges, from: buffer)
    }

    /// Drops the content of pages: they read as zero, or as their file, again.
    public func discard(_ ranges: [AddressRange]) throws {
        for start in stride(from: 0, to: ranges.count, by: 1000) {
            var batch = CallBatch()
            for range in ranges[start..<min(start + 1000, ranges.count)] {
                for area in layout[firstArea(endingAfter: range.lowerBound)...].prefix(while: {
                    $0.start < range.upperBound
                })
                where !area.isSpecial {
                    let part = range.clamped(to: area.range)
                    // MADV_REMOVE punches a hole into shared memory, MADV_DONTNEED drops private pages.
                    batch.call(
                        .madvise, .int(part.lowerBound), .int(part.count),
                        .value(area.kind == .sharedAnonymous ? 9 : 4),
                        doing: "dropping \(part.hex)")
                }
            }
            _ = try run(batch)
        }
    }

    /// A private mapping of a file shows the file's content where nothing was written.
    public func hasContentUnwritten(at page: UInt64) -> Bool {
        let index = firstArea(endingAfter: page)
        return index < layout.count && layout[index].kind == .privateFile
    }

    private func firstArea(endingAfter address: UInt64) -> Int {
        var low = 0, high = layout.count
        while low < high {
            let middle = (low + high) / 2
            if layout[middle].end <= address { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func currentMaps() throws -> [MapEntry] {
        let reader = try MemoryMapReader(pid: pid)
        _ = try reader.refresh()
        return reader.entries
    }

    private func findSystemCall(in range: AddressRange) throws -> UInt64 {
        let code = try memory.peek(range.count, at: range.lowerBound)
        for i in 0..<code.count - 1 where code[i] == 0x0f && code[i + 1] == 0x05 { return range.lowerBound + UInt64(i) }
        throw EngineError.invalidImage("no system call instruction in the vDSO")
    }

    /// A free place well inside the lower part of the address space.
    func hole(of size: UInt64, avoiding ranges: [AddressRange]) -> UInt64 {
        let taken = AddressRanges(ranges)
        var address: UInt64 = 0x1000_0000
        for range in taken.ranges where range.upperBound > address {
            if range.lowerBound >= address + size { break }
            address = range.upperBound
        }
        return address
    }

    private func placeArea(avoiding ranges: [AddressRange]) throws {
        let address = hole(of: InjectionArea.size, avoiding: ranges)
        let result = try step(.mmap, [address, InjectionArea.size, 7, 0x10_0021, UInt64.max, 0])
        area = try InjectionArea(of: pid, at: UInt64(try check(result, "mapping the injection area")))
    }

    /// The source maps something where the injection area is: it goes elsewhere.
    private func moveArea(avoiding areas: [MemoryArea]) throws {
        let old = area.range
        try placeArea(avoiding: areas.map(\.range) + (layout.map(\.range)) + [old])
        try check(try step(.munmap, [old.lowerBound, InjectionArea.size]), "unmapping the old injection area")
    }

    // ---- Calls ---------------------------------------------------------------------------------------------

    /// Runs one call by stepping over a system call instruction of the vDSO.
    private func step(_ call: SystemCall, _ arguments: [UInt64]) throws -> Int64 {
        var registers = bareRegisters
        registers.rip = vdsoSystemCall
        registers.rax = call.rawValue
        registers.orig_rax = UInt64.max
        let arguments = arguments + [UInt64](repeating: 0, count: 6 - arguments.count)
        (registers.rdi, registers.rsi, registers.rdx) = (arguments[0], arguments[1], arguments[2])
        (registers.r10, registers.r8, registers.r9) = (arguments[3], arguments[4], arguments[5])
        try leader.setRegisters(registers)
        try leader.resume(.oneStep)
        try awaitTrap(of: leader, "stepping a system call", .oneStep)
        return Int64(bitPattern: try leader.registers().rax)
    }

    /// Waits for the trap that ends what was injected; threads that it makes are taken in charge on the way, and what
    /// signals do to the process (SIGCONT and SIGSTOP show in every thread) is passed.
    private func awaitTrap(of tracee: Tracee, _ doing: String, _ way: Tracee.Way = .freely) throws {
        while true {
            let stop = try tracee.wait()
            switch stop {
            case .signal(SIGTRAP): return
            case .event(3):
                try adoptNewThread(of: tracee)
                try tracee.resume(way)
            case .killed(let signal): throw EngineError.exited(pid: pid, how: "signal \(signal)")
            case .exited(let code): throw EngineError.exited(pid: pid, how: "status \(code)")
            case .interrupted, .groupStop, .signal(SIGSTOP), .signal(SIGCONT): _ = try tracee.pass(stop, way)
            case .event, .systemCall, .signal:
                throw EngineError.unexpectedStop(task: tracee.tid, doing: doing, stop: "\(stop)")
            }
        }
    }

    /// Runs a batch in the leader.
    func run(_ batch: CallBatch) throws -> CallResults { try run([(leader, batch)])[0] }

    /// Runs batches in several threads at the same time; the leader's may be large.
    func run(_ batches: [(Tracee, CallBatch)]) throws -> [CallResults] {
        let work = batches.map { (thread: $0, batch: $1) }
        return try area.run(work, leader: batches.firstIndex { $0.0 == leader }, tid: \.tid) { wave in
            for one in wave {
                try one.slot.load(one.batch)
                try one.thread.setRegisters(bareRegisters.running(one.slot, blob: area.address))
                try one.thread.resume()
            }
            for one in wave { try awaitTrap(of: one.thread, "running injected calls") }
        }
    }

    private func adoptNewThread(of tracee: Tracee) throws {
        let thread = Tracee(tid: try tracee.eventMessage())
        guard try thread.wait().isTracers else {
            throw EngineError.unexpectedStop(task: thread.tid, doing: "making a thread", stop: "not its first stop")
        }
        guard let tid = try ProcessStatus(pid: pid, task: thread.tid).numbers("NSpid").last else {
            throw EngineError.invalidImage("a thread without a TID in its namespace")
        }
        try thread.setSignalMask(SourceProcess.allButTrap)
        threads[Int32(tid)] = thread
        attached.append(thread)
    }

    // ---- Threads -------------------------------------------------------------------------------------------

    /// Makes the threads that are missing and ends those that are too many.
    public func setThreads(_ tids: [Int32]) throws {
        let wanted = Set(tids)
        for tid in threads.keys where !wanted.contains(tid) {
            let thread = threads.removeValue(forKey: tid)!
            var batch = CallBatch()
            batch.call(.exit, .value(0), doing: "ending a thread")
            let slot = area.thread(0)
            try slot.load(batch)
            try thread.setRegisters(bareRegisters.running(slot, blob: area.address))
            try thread.resume()
            // Its end is the only stop that is not passed.
            while try thread.pass(try thread.wait()) {}
        }
        let missing = tids.filter { threads[$0] == nil }
        if missing.isEmpty { return }
        var batch = CallBatch()
        for tid in missing {
            let number = batch.bytes(withUnsafeBytes(of: tid) { Array($0) })
            let arguments = batch.bytes(threadArguments)
            // struct clone_args: set_tid stands at 64, set_tid_size at 72.
            batch.setAddress(of: number, at: arguments.advanced(by: 64))
            batch.call(.clone3, .address(arguments), .value(88), doing: "making thread \(tid)")
        }
        _ = try run(batch)
    }

    /// Drops, before the freeze, the capabilities that no thread of the container can have.
    func limitBoundingSet(to capabilities: UInt64) throws {
        boundingSet = try ProcessStatus(pid: pid).hex("CapBnd")
        var batch = CallBatch()
        CredentialsResource.limitBoundingSet(boundingSet, to: capabilities, &batch)
        if !batch.isEmpty { _ = try run(batch) }
        boundingSet = try ProcessStatus(pid: pid).hex("CapBnd")
    }

    private var threadArguments: [UInt8] {
        // CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM
        var words = [UInt64](repeating: 0, count: 11)
        words[0] = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
        words[9] = 1
        return words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
    }

    // ---- The end -------------------------------------------------------------------------------------------

    /// Unmaps the injection area: from here only registers and masks can be set.
    func closeArea() throws {
        try check(try step(.munmap, [area.address, InjectionArea.size]), "unmapping the injection area")
    }

    /// Stops the process as SIGSTOP does, before it has run an instruction: until a SIGCONT nothing of it runs once it
    /// is released. Every thread has its registers and its mask by now.
    func stopBySignal() throws {
        // Of all signals that wait, only this one shall take effect.
        let mask = try leader.signalMask()
        try leader.setSignalMask(UInt64.max)
        try check(clx_pidfd_send_signal(pidfd.number, SIGSTOP), "stopping pid \(pid)")
        try leader.resume()
        while true {
            let stop = try leader.wait()
            if case .groupStop = stop { break }
            guard try leader.pass(stop) else {
                throw EngineError.unexpectedStop(task: pid, doing: "stopping the process", stop: "\(stop)")
            }
        }
        try leader.setSignalMask(mask)
    }

    /// The engine's death does not end the process any more; nothing runs yet.
    ///
    /// All or nothing: a dead tracer's threads are let go in the order newest first (exit_ptrace), and SIGKILL to one
    /// ends all. So the newest loses EXITKILL last: as long as it has it, no other gets to run an instruction.
    public func disarm() throws {
        // Each stands at the trap that ended its last calls, and a tracer's death there delivers the trap, which kills.
        // On the way to the program they stop once more, at a stop that delivers nothing.
        for thread in threads.values {
            try thread.interrupt()
            try thread.resume()
        }
        for thread in threads.values {
            let stop = try thread.wait()
            guard stop.isTracers else {
                throw EngineError.unexpectedStop(task: thread.tid, doing: "disarming", stop: "\(stop)")
            }
        }
        let present = Set(threads.values)
        for thread in attached where present.contains(thread) { try thread.setOptions([]) }
    }

    /// Lets the process run.
    public func release() throws {
        for thread in threads.values { try thread.detach() }
    }

    /// Ends the stub.
    public func kill() {
        _ = clx_pidfd_send_signal(pidfd.number, SIGKILL)
        Tracee.collect(Array(threads.values))
    }
}

extension CallBatch {
    mutating func move(_ range: AddressRange, to address: UInt64, _ name: String) {
        // MREMAP_MAYMOVE | MREMAP_FIXED
        call(
            .mremap, .int(range.lowerBound), .int(range.count), .int(range.count), .value(3), .int(address),
            doing: "moving \(name) to 0x\(String(address, radix: 16))")
    }
}

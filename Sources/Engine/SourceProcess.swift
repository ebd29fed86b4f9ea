// The process that is moved, on its own host: stopped and let go, and made to run system calls for us, so that
// whatever happens to the engine it runs on as if nothing had been.
import CLinux
import Glibc
import LinuxKernel

/// A live process under the engine's hands. All calls belong on one thread.
public final class SourceProcess {
    public let pid: Int32
    public let pidfd: FileDescriptor
    public let memory: ProcessMemory
    let undo: any UndoLog
    /// Stopped threads, the leader first; empty while the process runs.
    var threads: [StoppedThread] = []
    var area: InjectionArea?
    var patch: (address: UInt64, length: Int)?

    /// A thread in its stop, with the state that injection must not disturb.
    struct StoppedThread {
        var tracee: Tracee
        var registers: user_regs_struct
        /// A signal waits that this thread may take.
        var signalPending = false
        var mask: UInt64
        var extendedState: [UInt8]
    }

    public init(pid: Int32, undo: any UndoLog) throws(KernelError) {
        self.pid = pid
        self.undo = undo
        pidfd = FileDescriptor(owning: try check(clx_pidfd_open(pid, 0), "opening pid \(pid)"))
        memory = try ProcessMemory(pid: pid)
    }

    /// TIDs in the container's PID namespace by those of this host.
    private var innerTIDs: [Int32: Int32] = [:]

    /// The TID of a thread in the container's PID namespace.
    public func innerTID(of tid: Int32) throws -> Int32 {
        if let known = innerTIDs[tid] { return known }
        // A thread that has just ended may still have a status, and the number 0.
        guard let found = try ProcessStatus(pid: pid, task: tid).numbers("NSpid").last, found > 0 else {
            throw EngineError.exited(pid: tid, how: "while its number was asked for")
        }
        innerTIDs[tid] = Int32(found)
        return Int32(found)
    }

    /// Looks up what the freeze would otherwise have to: TIDs of threads that are there now.
    ///
    /// Called just before the freeze: the kernel gives a number out again only after all others, which takes far
    /// longer than the way from here to the stop.
    public func learnThreads() throws -> [Int32] {
        let tids = try ProcessFiles.tasks(of: pid)
        innerTIDs = innerTIDs.filter { tids.contains($0.key) }
        return tids.compactMap { try? innerTID(of: $0) }
    }

    // ---- Stopping and letting go ---------------------------------------------------------------------------

    /// A container's seccomp filter shall not judge the calls that are injected.
    private static let traced: Tracee.Options = [.systemCallGood, .suspendSeccomp]

    /// Stops the leader, or all threads, including those born meanwhile.
    func stop(onlyLeader: Bool = false) throws {
        precondition(threads.isEmpty)
        var stopped: Set<Int32> = []
        var tracees: [Tracee] = []
        do {
            while true {
                let fresh = onlyLeader ? [pid] : try ProcessFiles.tasks(of: pid)
                let new = fresh.filter { !stopped.contains($0) }
                if new.isEmpty { break }
                for tid in new {
                    do throws(KernelError) {
                        let tracee = try Tracee.seize(tid, Self.traced)
                        tracees.append(tracee)
                        try tracee.interrupt()
                    } catch {
                        // A thread that ended between the listing and here is no loss; the leader is. Until it is gone it may not be
                        // traced any more.
                        let isOver = error.errno == .noProcess || error.errno == .notPermitted && hasEnded(tid)
                        guard isOver, tid != pid else { throw error }
                    }
                    stopped.insert(tid)
                }
                for tid in new { try tracees.first { $0.tid == tid }.map(awaitStop) }
                if onlyLeader { break }
            }
        } catch {
            for tracee in tracees { try? tracee.detach() }
            throw error
        }
        for tracee in tracees.sorted(by: { ($0.tid == pid ? 0 : $0.tid) < ($1.tid == pid ? 0 : $1.tid) }) {
            guard let registers = try? tracee.registers() else { continue }
            threads.append(
                StoppedThread(
                    tracee: tracee, registers: registers, mask: try tracee.signalMask(),
                    extendedState: try tracee.extendedState()))
        }
        let shared = try pendingMask(task: pid, shared: true)
        for index in threads.indices {
            let own = try pendingMask(task: threads[index].tracee.tid, shared: false)
            threads[index].signalPending = (own | shared) & ~threads[index].mask != 0
            // Should the engine die, the kernel lets the thread go as it is: its call must not report an interruption.
            let rewound = threads[index].registers.rewoundHere(signalPending: threads[index].signalPending)
            if rewound.rip != threads[index].registers.rip {
                try threads[index].tracee.setRegisters(rewound)
                threads[index].registers = rewound
            }
        }
    }

    private func hasEnded(_ tid: Int32) -> Bool {
        guard let text = try? SmallFile.text("/proc/\(pid)/task/\(tid)/stat"), let end = text.lastIndex(of: ")") else {
            return true
        }
        return ["Z", "X"].contains(text[end...].dropFirst(2).first)
    }

    private func pendingMask(task: Int32, shared: Bool) throws(KernelError) -> UInt64 {
        let records = try Tracee(tid: task).pendingSignals(ofProcess: shared)
        return records.reduce(0) { $0 | 1 << (UInt64($1[0]) - 1) }
    }

    /// Waits for the stop of PTRACE_INTERRUPT; signals that come first are put back by stopping again after them.
    private func awaitStop(_ tracee: Tracee) throws {
        for _ in 0..<1000 {
            switch try tracee.wait() {
            case .interrupted: return
            case .signal(let number):
                try tracee.resume(number)
                try tracee.interrupt()
            case .exited(let code) where tracee.tid == pid: throw EngineError.exited(pid: pid, how: "status \(code)")
            case .killed(let signal) where tracee.tid == pid:
                throw EngineError.exited(pid: pid, how: "signal \(signal)")
            case .exited, .killed: return
            case let stop: throw EngineError.unexpectedStop(task: tracee.tid, doing: "stopping", stop: "\(stop)")
            }
        }
        throw EngineError.unexpectedStop(task: tracee.tid, doing: "stopping", stop: "a flood of signals")
    }

    /// Lets all stopped threads go on exactly where they were.
    public func letGo() throws {
        defer { threads = [] }
        var failure: (any Error)?
        for thread in threads {
            do throws(KernelError) {
                try thread.tracee.setRegisters(thread.registers.rewoundHere(signalPending: thread.signalPending))
                try thread.tracee.setSignalMask(thread.mask)
                try thread.tracee.detach()
            } catch { if error.errno != .noProcess { failure = error } }
        }
        if let failure { throw failure }
    }

    /// Stops all threads for the handover.
    public func freeze() throws { try stop() }

    // ---- Injection -----------------------------------------------------------------------------------------

    /// Maps the injection area into the process, once. The leader must be stopped.
    func openArea() throws -> InjectionArea {
        if let area { return area }
        let maps = MemoryMapReader.self
        let reader = try maps.init(pid: pid)
        _ = try reader.refresh()
        guard let vdso = reader.entries.first(where: { $0.name == "[vdso]" }) else {
            throw EngineError.obstacles([
                Obstacle(pid: pid, process: "", subject: "memory", reason: "no vDSO is mapped")
            ])
        }
        let code = machineCode(CLX_CODE_STUB_START, CLX_CODE_STUB_END)
        let entry = UInt64(machineCode(CLX_CODE_STUB_START, CLX_CODE_STUB_SYSCALL).count)
        let place = (vdso.range.upperBound - UInt64(code.count) - 8) & ~15
        let found = try memory.peek(Int(vdso.range.upperBound - place), at: place)
        guard found.allSatisfy({ $0 == 0 }) else {
            throw EngineError.obstacles([
                Obstacle(
                    pid: pid, process: "", subject: "vDSO", reason: "no room at its end for the first injected call")
            ])
        }
        try undo.note(.vdsoPatch(pid: pid, address: place, length: code.count))
        try memory.poke(code, at: place)
        patch = (place, code.count)
        let mapping = UndoStep.mapping(
            pid: pid, length: InjectionArea.size,
            existing: reader.entries.filter(\.resemblesInjectionArea).map(\.range.lowerBound))
        try undo.note(mapping)
        let address: Int64
        do {
            address = try bootstrap(
                at: place + entry, SystemCall.mmap, [0, InjectionArea.size, 7, 0x21, UInt64.max, 0],
                "mapping the injection area")
        } catch {
            patch = nil
            try undo.done(mapping)
            try memory.poke([UInt8](repeating: 0, count: code.count), at: place)
            try undo.done(.vdsoPatch(pid: pid, address: place, length: code.count))
            guard (error as? KernelError)?.errno.rawValue == EACCES else { throw error }
            let reason = "no mapping that is writable and executable (PR_SET_MDWE), not carried yet"
            throw EngineError.obstacles([
                Obstacle(pid: pid, process: processName(pid), subject: "process", reason: reason)
            ])
        }
        try undo.note(.injectionArea(pid: pid, address: UInt64(address), length: InjectionArea.size))
        try undo.done(mapping)
        let area = try InjectionArea(of: pid, at: UInt64(address))
        self.area = area
        return area
    }

    /// Removes the area and everything that came with it. The leader must be stopped.
    func closeArea() throws {
        guard let area, let patch else { return }
        let entry = UInt64(machineCode(CLX_CODE_STUB_START, CLX_CODE_STUB_SYSCALL).count)
        self.area = nil
        _ = try bootstrap(
            at: patch.address + entry, SystemCall.munmap, [area.address, InjectionArea.size],
            "unmapping the injection area")
        try undo.done(.injectionArea(pid: pid, address: area.address, length: InjectionArea.size))
        try memory.poke([UInt8](repeating: 0, count: patch.length), at: patch.address)
        try undo.done(.vdsoPatch(pid: pid, address: patch.address, length: patch.length))
        self.patch = nil
    }

    /// Runs one call in the leader through the code at the end of the vDSO. Should the engine die, the leader waits
    /// there for the guard, which puts its registers back.
    private func bootstrap(at address: UInt64, _ call: SystemCall, _ arguments: [UInt64], _ purpose: String) throws
        -> Int64
    {
        let thread = threads[0], tracee = thread.tracee
        let saved = withUnsafeBytes(of: thread.registers.rewound(signalPending: thread.signalPending)) { Array($0) }
        let note = UndoStep.bootstrap(pid: pid, tid: tracee.tid, registers: saved, mask: thread.mask)
        try undo.note(note)
        var registers = thread.registers
        registers.rip = address
        registers.rax = call.rawValue
        registers.orig_rax = UInt64.max
        (registers.rdi, registers.rsi, registers.rdx) = (
            arguments[0], arguments[1], arguments.count > 2 ? arguments[2] : 0
        )
        (registers.r10, registers.r8, registers.r9) =
            arguments.count > 5 ? (arguments[3], arguments[4], arguments[5]) : (0, 0, 0)
        // Registers first, and last on the way back: who dies in between leaves no thread of the program with all its
        // signals blocked.
        try tracee.setRegisters(registers)
        try tracee.setSignalMask(Self.allButTrap)
        for _ in 0..<2 {
            try tracee.resumeToSystemCall()
            let stop = try tracee.wait()
            guard stop == .systemCall else {
                throw EngineError.unexpectedStop(task: tracee.tid, doing: purpose, stop: "\(stop)")
            }
        }
        let result = Int64(bitPattern: try tracee.registers().rax)
        // Only at a stop of PTRACE_INTERRUPT does the kernel see that an interrupted call has to start again.
        try tracee.interrupt()
        try tracee.resume()
        try awaitStop(tracee)
        try tracee.setSignalMask(thread.mask)
        try tracee.setRegisters(thread.registers)
        try undo.done(note)
        return try check(result, "\(purpose), injected into task \(tracee.tid)")
    }

    /// Everything blocked but SIGTRAP: a forced SIGTRAP that is blocked would reset its handler.
    static let allButTrap = ~UInt64(1 << (SIGTRAP - 1))

    /// Runs a batch in each of the stopped threads at the same time; the leader's may be large.
    func run(_ batches: [CallBatch]) throws -> [CallResults] {
        let area = try openArea()
        var results: [CallResults] = []
        var first = 0
        while first < batches.count {
            let wave = first..<min(batches.count, first + InjectionArea.threadSlots)
            let slots = wave.map { $0 == 0 ? area.process : area.thread($0 - first) }
            for (index, slot) in zip(wave, slots) {
                let thread = threads[index]
                try slot.load(
                    batches[index], returningTo: thread.registers.rewound(signalPending: thread.signalPending),
                    thread.extendedState, mask: thread.mask)
                try thread.tracee.setRegisters(thread.registers.running(slot, blob: area.address))
                try thread.tracee.setSignalMask(Self.allButTrap)
                try thread.tracee.resume()
            }
            for (index, slot) in zip(wave, slots) {
                try slot.waitUntilDone()
                try threads[index].tracee.interrupt()
            }
            for (index, slot) in zip(wave, slots) {
                let thread = threads[index]
                try awaitStop(thread.tracee)
                try thread.tracee.setSignalMask(thread.mask)
                try thread.tracee.setRegisters(thread.registers)
                results.append(try batches[index].results(at: slot.local, of: thread.tracee.tid))
            }
            first = wave.upperBound
        }
        return results
    }

    // ---- Tracking ------------------------------------------------------------------------------------------

    /// Stops the leader for a moment and makes a userfaultfd in the process, which only the engine keeps.
    public func arm() throws -> Userfaultfd {
        try stop(onlyLeader: true)
        do {
            _ = try openArea()
            var batch = CallBatch()
            // O_CLOEXEC | O_NONBLOCK, events of kernel-mode faults included (CAP_SYS_PTRACE) or not.
            batch.call(.userfaultfd, .int(O_CLOEXEC | O_NONBLOCK | 1), doing: "making a userfaultfd")
            try undo.note(.userfaultfd(pid: pid))
            let number = try run([batch])[0][0]
            let copy = clx_pidfd_getfd(pidfd.number, Int32(number))
            var close = CallBatch()
            close.call(.close, .int(number), doing: "closing the userfaultfd")
            _ = try run([close])
            try undo.done(.userfaultfd(pid: pid))
            let descriptor = FileDescriptor(owning: try check(copy, "taking the userfaultfd of pid \(pid)"))
            try letGo()
            return try Userfaultfd(descriptor)
        } catch {
            try? letGo()
            throw error
        }
    }

    /// Stops the leader for a moment and maps the injection area, so that the freeze need not, and asks what only the
    /// process itself can tell.
    public func attach() throws {
        try stop(onlyLeader: true)
        defer { try? letGo() }
        _ = try openArea()
        var settings = UncarriedSettings(), batch = CallBatch()
        settings.ask(&batch)
        let reasons = settings.reasons(try run([batch])[0])
        if reasons.isEmpty { return }
        throw EngineError.obstacles(
            reasons.map { Obstacle(pid: pid, process: processName(pid), subject: "process", reason: $0) })
    }

    /// The engine's own mapping in the process.
    public var injected: AddressRange? { area?.range }

    /// Removes every trace of the engine from the running process.
    public func disarm() throws {
        if !threads.isEmpty {
            try closeArea()
            return try letGo()
        }
        guard area != nil else { return }
        try stop(onlyLeader: true)
        defer { try? letGo() }
        try closeArea()
    }

    /// SIGKILL. Frozen by its cgroup, it dies at the thaw, before another instruction.
    ///
    /// Giving back its memory takes many milliseconds of a processor, which it must not take from its living copy.
    public func kill() {
        for thread in threads { ThreadPriority.idle.apply(to: thread.tracee.tid) }
        _ = clx_pidfd_send_signal(pidfd.number, SIGKILL)
    }

    /// Collects the traced threads of a process that was killed: until its tracer has, a dead thread stays a zombie.
    public func reap() {
        var left = threads.map(\.tracee)
        threads = []
        for _ in 0..<5000 where !left.isEmpty {
            left.removeAll { tracee in
                switch try? tracee.poll() {
                case .exited, .killed: return true
                case nil: return Glibc.kill(tracee.tid, 0) != 0
                default:
                    // A stop on the way to its end.
                    try? tracee.detach()
                    return true
                }
            }
            if !left.isEmpty { usleep(1000) }
        }
    }
}

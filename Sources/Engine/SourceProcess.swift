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
    /// As last looked at.
    var openFiles: OpenFiles
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
        openFiles = OpenFiles(of: pid)
        pidfd = FileDescriptor(owning: try check(clx_pidfd_open(pid, 0), "opening pid \(pid)"))
        memory = try ProcessMemory(pid: pid)
    }

    /// What is known of threads from before the freeze, by their TIDs on this host.
    private var knownThreads: [Int32: KnownThread] = [:]

    struct KnownThread {
        /// In the container's PID namespace.
        var innerTID: Int32
        /// Its capability bounding set, of which a thread can only drop some.
        var bounding: UInt64
    }

    /// What is known of a thread, or its status file tells now.
    func knownThread(_ tid: Int32) throws -> KnownThread {
        if let known = knownThreads[tid] { return known }
        let status = try ProcessStatus(pid: pid, task: tid)
        // A thread that has just ended may still have a status, and the number 0.
        guard let inner = status.numbers("NSpid").last, inner > 0 else {
            throw EngineError.exited(pid: tid, how: "while its number was asked for")
        }
        let known = KnownThread(innerTID: Int32(inner), bounding: status.hex("CapBnd"))
        knownThreads[tid] = known
        return known
    }

    /// The TID of a thread in the container's PID namespace.
    public func innerTID(of tid: Int32) throws -> Int32 { try knownThread(tid).innerTID }

    /// Looks up what the freeze would otherwise have to: TIDs of threads that are there now.
    ///
    /// Called just before the freeze: the kernel gives a number out again only after all others, which takes far
    /// longer than the way from here to the stop.
    public func learnThreads() throws -> [Int32] {
        let tids = try ProcessFiles.tasks(of: pid), present = Set(tids)
        knownThreads = knownThreads.filter { present.contains($0.key) }
        return tids.compactMap { try? innerTID(of: $0) }
    }

    // ---- Stopping and letting go ---------------------------------------------------------------------------

    /// A container's seccomp filter shall not judge the calls that are injected.
    private static let traced: Tracee.Options = [.systemCallGood, .suspendSeccomp]

    /// Asked every 50 ms while a thread is waited for that does not stop, or does not come to the end of its calls, and
    /// within long steps; throws to end them. Without it a wait ends after `longestWait`.
    public var whileWaiting: () throws -> Void = {}
    private static let longestWait: Int64 = 5_000_000_000

    /// Threads that were told to stop and have not: something holds them. Nothing can be done with them until they
    /// stop, not even letting them go; the kernel does that when the tracing thread ends.
    private var held: [Int32: Tracee] = [:]
    /// Those of them that are in the midst of injected calls.
    private var astray: Set<Int32> = []

    /// A userfaultfd that the engine made may be among its descriptors.
    private var mayHaveUserfaultfd = false

    /// The process is stopped by a signal (SIGSTOP and its kin), as the last stop of one of its threads told.
    private(set) var isStoppedBySignal = false

    /// Stops the leader, or all threads, including those born meanwhile.
    func stop(onlyLeader: Bool = false) throws {
        precondition(threads.isEmpty)
        var seen: Set<Int32> = [], stopped: [Tracee] = []
        do {
            while true {
                let fresh = onlyLeader ? [pid] : try ProcessFiles.tasks(of: pid)
                let new = fresh.filter { !seen.contains($0) }
                if new.isEmpty { break }
                for tid in new {
                    seen.insert(tid)
                    do throws(KernelError) {
                        if held[tid] == nil { held[tid] = try Tracee.seize(tid, Self.traced) }
                        try held[tid]!.interrupt()
                    } catch {
                        // A thread that ended between the listing and here is no loss; the leader is. Until it is gone
                        // it may not be traced any more.
                        let isOver = error.errno == .noProcess || error.errno == .notPermitted && hasEnded(tid)
                        guard isOver, tid != pid else { throw error }
                        held[tid] = nil
                    }
                }
                for tid in new {
                    guard let tracee = held[tid] else { continue }
                    if try awaitStop(tracee) { stopped.append(tracee) }
                    held[tid] = nil
                }
                // As many as there are: there is none that was not listed, and no need to list thousands again.
                if try onlyLeader || ProcessStatus(pid: pid).numbers("Threads").first == UInt64(stopped.count) { break }
            }
            guard memory.isCurrent else { throw EngineError.executed(pid: pid) }
            stopped.sort { ($0.tid == pid ? 0 : $0.tid) < ($1.tid == pid ? 0 : $1.tid) }
            for tracee in stopped {
                // SIGKILL ends a thread in its stop, too.
                guard let registers = try? tracee.registers() else { continue }
                threads.append(
                    StoppedThread(
                        tracee: tracee, registers: registers, mask: try tracee.signalMask(),
                        extendedState: try tracee.extendedState()))
            }
            try rewindInterruptedCalls()
            // Calls that are injected would become signals, too.
            let dispatching = threads.filter { $0.tracee.dispatchesSystemCalls() }
            if !dispatching.isEmpty {
                throw EngineError.obstacles(
                    dispatching.map {
                        Obstacle(
                            pid: pid, process: processName(pid), subject: "thread \($0.tracee.tid)",
                            reason: "its system calls become signals (PR_SET_SYSCALL_USER_DISPATCH), not carried yet")
                    })
            }
        } catch {
            threads = []
            for tracee in stopped { try? tracee.detach() }
            if case EngineError.executed = error { try forgetTraces() }
            throw error
        }
    }

    /// Should the engine die, the kernel lets each thread go as it is: its call must not report an interruption.
    private func rewindInterruptedCalls() throws {
        let shared = try pendingMask(task: pid, shared: true)
        for index in threads.indices {
            let own = try pendingMask(task: threads[index].tracee.tid, shared: false)
            threads[index].signalPending = (own | shared) & ~threads[index].mask != 0
            let rewound = threads[index].registers.rewoundHere(signalPending: threads[index].signalPending)
            if rewound.rip != threads[index].registers.rip {
                try threads[index].tracee.setRegisters(rewound)
                threads[index].registers = rewound
            }
        }
    }

    /// What was injected went with the memory that it was injected into.
    private func forgetTraces() throws {
        if let area { try undo.done(.injectionArea(pid: pid, address: area.address, length: InjectionArea.size)) }
        if let patch { try undo.done(.vdsoPatch(pid: pid, address: patch.address, length: patch.length)) }
        (area, patch) = (nil, nil)
        // It is closed by execve(2).
        if mayHaveUserfaultfd { try noteNoUserfaultfd() }
    }

    private func hasEnded(_ tid: Int32) -> Bool {
        guard let state = try? ProcessFiles.statistics(of: pid, task: tid).first else { return true }
        return state == "Z" || state == "X"
    }

    private func pendingMask(task: Int32, shared: Bool) throws(KernelError) -> UInt64 {
        let records = try Tracee(tid: task).pendingSignals(ofProcess: shared)
        return records.reduce(0) { $0 | 1 << (UInt64($1[0]) - 1) }
    }

    /// Waits for the next stop of a thread, no longer than `longestWait` and as long as `whileWaiting` likes.
    func wait(for tracee: Tracee, _ doing: String) throws -> Tracee.Stop {
        let begin = monotonicNow()
        return try tracee.wait {
            try whileWaiting()
            if monotonicNow() - begin > Self.longestWait { throw EngineError.heldUp(task: tracee.tid, doing: doing) }
        }
    }

    /// Waits until a thread that was interrupted stands still; signals that come first take their effect.
    ///
    /// - Returns: false if the thread has ended; the leader's end is an error.
    @discardableResult
    func awaitStop(_ tracee: Tracee) throws -> Bool {
        for _ in 0..<1000 {
            let stop = try wait(for: tracee, "stopping")
            switch stop {
            case .interrupted, .groupStop:
                isStoppedBySignal = stop != .interrupted
                return true
            case .signal, .systemCall:
                _ = try tracee.pass(stop)
                try tracee.interrupt()
            case .exited, .killed:
                if tracee.tid == pid { throw ended(stop) }
                return false
            case .event: throw EngineError.unexpectedStop(task: tracee.tid, doing: "stopping", stop: "\(stop)")
            }
        }
        throw EngineError.unexpectedStop(task: tracee.tid, doing: "stopping", stop: "a flood of signals")
    }

    func ended(_ stop: Tracee.Stop) -> EngineError {
        switch stop {
        case .exited(let code): .exited(pid: pid, how: "status \(code)")
        case .killed(let signal): .exited(pid: pid, how: "signal \(signal)")
        default: .exited(pid: pid, how: "\(stop)")
        }
    }

    /// Lets all stopped threads go on exactly where they were.
    public func letGo() throws {
        defer { threads = [] }
        var failure: (any Error)?
        do { try letHeldGo() } catch { failure = error }
        for thread in threads {
            do throws(KernelError) {
                try thread.tracee.setRegisters(thread.registers.rewoundHere(signalPending: thread.signalPending))
                try thread.tracee.setSignalMask(thread.mask)
                try thread.tracee.detach()
            } catch { if error.errno != .noProcess { failure = error } }
        }
        if let failure { throw failure }
    }

    /// Lets those threads go that were told to stop, did so too late for whoever waited, and stand still since. One in
    /// the midst of injected calls ends them by itself, as if its tracer had died.
    public func letHeldGo() throws {
        for (tid, tracee) in held {
            do throws(KernelError) {
                guard let stop = try tracee.poll() else { continue }
                if stop.isTracers { try tracee.detach() } else if try tracee.pass(stop) { continue }
            } catch { if error.errno != .noProcess { throw error } }
            held[tid] = nil
        }
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
        // Where this throws, nobody knows whether the mapping was made: the notes stay for whoever puts that right.
        let address = try bootstrap(
            at: place + entry, SystemCall.mmap, [0, InjectionArea.size, 7, 0x21, UInt64.max, 0],
            "mapping the injection area")
        guard address >= 0 else {
            patch = nil
            try undo.done(mapping)
            try memory.poke([UInt8](repeating: 0, count: code.count), at: place)
            try undo.done(.vdsoPatch(pid: pid, address: place, length: code.count))
            throw refusal(of: Errno(Int32(-address)))
        }
        try undo.note(.injectionArea(pid: pid, address: UInt64(address), length: InjectionArea.size))
        try undo.done(mapping)
        let area = try InjectionArea(of: pid, at: UInt64(address))
        self.area = area
        // A child would keep both for ever: the mapping is not inherited, and the code is only there while it runs.
        let kept = try bootstrap(
            at: place + entry, SystemCall.madvise, [area.address, InjectionArea.size, 10 /* MADV_DONTFORK */],
            "keeping the injection area from children")
        try check(kept, "keeping the injection area of task \(pid) from children")
        try memory.poke([UInt8](repeating: 0, count: code.count), at: place)
        return area
    }

    /// Why a process cannot have the injection area, by what mmap(2) answered in it.
    private func refusal(of error: Errno) -> any Error {
        let size = "\(InjectionArea.size >> 20) MiB that the engine maps into a process"
        let reason =
            switch error.rawValue {
            case EACCES: "no mapping that is writable and executable (PR_SET_MDWE), not carried yet"
            case ENOMEM:
                "no room for the \(size): its limit of address space (RLIMIT_AS) or the kernel's of mappings "
                    + "(vm.max_map_count) is reached; raise it (`prlimit --pid \(pid) --as=...`, sysctl)"
            case EAGAIN:
                "memory to come is locked (mlockall with MCL_FUTURE), not carried yet; there is no room for the \(size) "
                    + "within its limit of locked memory (RLIMIT_MEMLOCK) either"
            default: "mapping the \(size): \(error)"
            }
        return EngineError.obstacles([
            Obstacle(pid: pid, process: processName(pid), subject: "process", reason: reason)
        ])
    }

    /// Removes the area and everything that came with it. The leader must be stopped.
    func closeArea() throws {
        guard let area, let patch else { return }
        let entry = UInt64(machineCode(CLX_CODE_STUB_START, CLX_CODE_STUB_SYSCALL).count)
        self.area = nil
        try memory.poke(machineCode(CLX_CODE_STUB_START, CLX_CODE_STUB_END), at: patch.address)
        let result = try bootstrap(
            at: patch.address + entry, SystemCall.munmap, [area.address, InjectionArea.size],
            "unmapping the injection area")
        try check(result, "unmapping the injection area of task \(pid)")
        try undo.done(.injectionArea(pid: pid, address: area.address, length: InjectionArea.size))
        try memory.poke([UInt8](repeating: 0, count: patch.length), at: patch.address)
        try undo.done(.vdsoPatch(pid: pid, address: patch.address, length: patch.length))
        self.patch = nil
    }

    /// Runs one call in the leader through the code at the end of the vDSO. Should the engine die, the leader waits
    /// there for the guard, which puts its registers back.
    ///
    /// - Returns: what the call answered, an error as a negative number.
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
        let result: Int64
        do {
            // Registers first, and last on the way back: who dies in between leaves no thread of the program with all
            // its signals blocked.
            try tracee.setRegisters(registers)
            try tracee.setSignalMask(Self.allSignals)
            for _ in 0..<2 { try goToSystemCall(tracee, purpose) }
            result = Int64(bitPattern: try tracee.registers().rax)
            try tracee.interrupt()
            try tracee.resume()
        } catch {
            giveUp(on: [thread])
            throw error
        }
        try bringBack(thread)
        try undo.done(note)
        return result
    }

    /// Lets a stopped thread go on to the next entry or exit of a system call.
    func goToSystemCall(_ tracee: Tracee, _ doing: String) throws {
        try tracee.resume(.toSystemCall)
        while true {
            let stop = try wait(for: tracee, doing)
            if stop == .systemCall { return }
            guard try tracee.pass(stop, .toSystemCall) else { throw ended(stop) }
        }
    }

    private static let allSignals = UInt64.max

    /// Everything blocked but SIGTRAP: a forced SIGTRAP that is blocked would reset its handler.
    static let allButTrap = ~UInt64(1 << (SIGTRAP - 1))

    /// Waits until a thread that ran what was injected stands still, and gives it back the registers and the mask it
    /// had. Only at a stop of PTRACE_INTERRUPT does the kernel see that an interrupted call has to start again.
    private func bringBack(_ thread: StoppedThread) throws {
        guard try awaitStop(thread.tracee) else { return }
        try thread.tracee.setSignalMask(thread.mask)
        try thread.tracee.setRegisters(thread.registers)
    }

    /// Brings back threads whose injected calls cannot be waited for any longer. One that is held still goes on later
    /// by itself, as if its tracer had died, and counts as held until then.
    private func giveUp(on given: [StoppedThread]) {
        for thread in given {
            do {
                let isStopped = (try? thread.tracee.registers()) != nil
                try thread.tracee.interrupt()
                if isStopped { try thread.tracee.resume() }
                let begin = monotonicNow()
                let patience = {
                    if monotonicNow() - begin > 200_000_000 {
                        throw EngineError.heldUp(task: thread.tracee.tid, doing: "")
                    }
                }
                var stop = try thread.tracee.wait(patience)
                while !stop.isTracers, try thread.tracee.pass(stop) {
                    try thread.tracee.interrupt()
                    stop = try thread.tracee.wait(patience)
                }
                try thread.tracee.setSignalMask(thread.mask)
                try thread.tracee.setRegisters(thread.registers)
            } catch {
                threads.removeAll { $0.tracee == thread.tracee }
                if (error as? KernelError)?.errno != .noProcess {
                    held[thread.tracee.tid] = thread.tracee
                    astray.insert(thread.tracee.tid)
                }
            }
        }
    }

    /// Runs a batch in each of the stopped threads, or those from `base` on, at the same time; the leader's may be
    /// large.
    func run(_ batches: [CallBatch], from base: Int = 0) throws -> [CallResults] {
        let area = try openArea(), work = zip(threads[base...], batches).map { (thread: $0, batch: $1) }
        var isFirst = true
        return try area.run(work, leader: base == 0 ? 0 : nil, tid: \.tracee.tid) { wave in
            if !isFirst { try whileWaiting() }
            isFirst = false
            do {
                for one in wave {
                    let thread = one.thread
                    try one.slot.load(
                        one.batch, returningTo: thread.registers.rewound(signalPending: thread.signalPending),
                        thread.extendedState, mask: thread.mask)
                    try thread.tracee.setRegisters(thread.registers.running(one.slot, blob: area.address))
                    try thread.tracee.setSignalMask(Self.allSignals)
                    try thread.tracee.resume()
                }
                for one in wave {
                    try awaitEnd(of: one.slot, in: one.thread.tracee)
                    try one.thread.tracee.interrupt()
                }
                for one in wave { try bringBack(one.thread) }
            } catch {
                giveUp(on: wave.map(\.thread))
                throw error
            }
        }
    }

    /// Waits until a batch has run; what stops its thread on the way is passed.
    private func awaitEnd(of slot: InjectionArea.Slot, in tracee: Tracee) throws {
        let begin = monotonicNow()
        var asked = begin
        while !slot.isDone(within: 1_000_000) {
            if let stop = try tracee.poll(), try !tracee.pass(stop) { throw ended(stop) }
            let now = monotonicNow()
            guard now - asked > 50_000_000 else { continue }
            try whileWaiting()
            asked = now
            if now - begin > Self.longestWait {
                throw EngineError.heldUp(task: tracee.tid, doing: "running injected calls")
            }
        }
    }

    // ---- Tracking ------------------------------------------------------------------------------------------

    /// Stops the leader for a moment and makes a userfaultfd in the process, which only the engine keeps.
    public func arm() throws -> Userfaultfd {
        try stop(onlyLeader: true)
        do {
            _ = try openArea()
            let number = try openUserfaultfd()
            let copy = clx_pidfd_getfd(pidfd.number, Int32(number))
            var close = CallBatch()
            close.call(.close, .int(number), doing: "closing the userfaultfd")
            _ = try run([close])
            try noteNoUserfaultfd()
            let descriptor = FileDescriptor(owning: try check(copy, "taking the userfaultfd of pid \(pid)"))
            try letGo()
            return try Userfaultfd(descriptor)
        } catch {
            try? letGo()
            throw error
        }
    }

    /// Makes a userfaultfd in the stopped process.
    ///
    /// - Returns: its number there. Where this throws, nobody knows whether it was made.
    func openUserfaultfd() throws -> Int64 {
        try undo.note(.userfaultfd(pid: pid))
        mayHaveUserfaultfd = true
        do { return try makeUserfaultfd() } catch let error as EngineError {
            if case .obstacles = error { try noteNoUserfaultfd() }
            throw error
        }
    }

    private func noteNoUserfaultfd() throws {
        try undo.done(.userfaultfd(pid: pid))
        mayHaveUserfaultfd = false
    }

    /// Where the program has taken all numbers that its limit allows, the limit is as high as can be for this one call.
    private func makeUserfaultfd() throws -> Int64 {
        func make(_ batch: inout CallBatch) -> Int {
            // O_CLOEXEC | O_NONBLOCK, events of kernel-mode faults included (CAP_SYS_PTRACE) or not.
            batch.call(
                .userfaultfd, .int(O_CLOEXEC | O_NONBLOCK | 1), must: false, doing: "making a userfaultfd")
        }
        var batch = CallBatch()
        let number = make(&batch), limit = batch.space(16)
        batch.call(
            .prlimit64, .value(0), .int(Self.openFilesLimit), .value(0), .address(limit), doing: "reading its limit")
        var answers = try run([batch])[0]
        var result = answers[number]
        let soft = answers.word(limit), hard = answers.word(limit, at: 1)
        if result == -Int64(EMFILE), soft < hard {
            // One batch, which runs to its end whatever becomes of the engine.
            batch = CallBatch()
            let raised = batch.words([hard, hard]), own = batch.words([soft, hard])
            batch.call(
                .prlimit64, .value(0), .int(Self.openFilesLimit), .address(raised), .value(0),
                doing: "raising its limit")
            let number = make(&batch)
            batch.call(
                .prlimit64, .value(0), .int(Self.openFilesLimit), .address(own), .value(0), doing: "lowering its limit")
            answers = try run([batch])[0]
            result = answers[number]
        }
        if result == -Int64(EMFILE) {
            let reason =
                "all \(hard) numbers that its limits allow are taken (RLIMIT_NOFILE), and watching its memory takes one for a "
                + "moment: raise its hard limit, or move it by cold"
            throw EngineError.obstacles([
                Obstacle(pid: pid, process: processName(pid), subject: "descriptors", reason: reason)
            ])
        }
        return try check(result, "making a userfaultfd in pid \(pid)")
    }
    private static let openFilesLimit = Int32(RLIMIT_NOFILE.rawValue)

    /// Stops the leader for a moment and maps the injection area, so that the freeze need not, and asks what only the
    /// process itself can tell.
    public func attach() throws {
        try stop(onlyLeader: true)
        let reasons: [String]
        do {
            _ = try openArea()
            var settings = UncarriedSettings(), batch = CallBatch()
            settings.ask(&batch)
            reasons = settings.reasons(try run([batch])[0]) + Uncarried.reasons(threads[0].tracee)
        } catch {
            try? letGo()
            throw error
        }
        try letGo()
        if reasons.isEmpty { return }
        throw EngineError.obstacles(
            reasons.map { Obstacle(pid: pid, process: processName(pid), subject: "process", reason: $0) })
    }

    /// The engine's own mapping in the process.
    public var injected: AddressRange? { area?.range }

    /// Removes every trace of the engine from the process, which runs on.
    ///
    /// - Throws: if something stays, which the undo log then still tells.
    public func disarm() throws {
        do {
            if threads.isEmpty, area == nil, patch == nil, held.isEmpty { return }
            // What such a thread runs may be in the area.
            try letHeldGo()
            if let task = astray.first ?? held.keys.first {
                throw EngineError.heldUp(task: task, doing: "taking back what was injected")
            }
            if threads.isEmpty { try stop(onlyLeader: true) }
            do {
                // Closing it takes injected calls, so it comes before the area goes.
                if mayHaveUserfaultfd, area != nil {
                    try closeUserfaultfds()
                    try noteNoUserfaultfd()
                }
                try closeArea()
                if patch != nil { throw EngineError.heldUp(task: pid, doing: "taking back what was injected") }
            } catch {
                try? letGo()
                throw error
            }
            try letGo()
        } catch EngineError.executed { return }
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

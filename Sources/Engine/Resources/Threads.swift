// A thread's own state: registers, signal mask, alternate stack, names, scheduling, credentials.
import CLinux
import Glibc
import LinuxKernel

/// Captures one thread: what to ask in it, and what its tracer reads.
struct ThreadCapture {
    private var stack = CallBatch.DataReference.none, clearTID = CallBatch.DataReference.none
    private var name = CallBatch.DataReference.none, deathSignal = CallBatch.DataReference.none
    private var affinity = CallBatch.DataReference.none
    private var slack = 0, securebits = 0, ioPriority = 0, cpus = 0

    mutating func ask(_ batch: inout CallBatch) {
        stack = batch.space(24)
        batch.call(.sigaltstack, .value(0), .address(stack), doing: "reading the alternate stack")
        clearTID = batch.space(8)
        batch.call(.prctl, .value(40), .address(clearTID), doing: "reading PR_GET_TID_ADDRESS")
        name = batch.space(16)
        batch.call(.prctl, .value(16), .address(name), doing: "reading the thread's name")
        deathSignal = batch.space(8)
        batch.call(.prctl, .value(2), .address(deathSignal), doing: "reading PR_GET_PDEATHSIG")
        slack = batch.call(.prctl, .value(30), doing: "reading the timer slack")
        securebits = CredentialsResource.ask(&batch)
        ioPriority = batch.call(.ioprioGet, .value(1), .value(0), doing: "reading the I/O priority")
        affinity = batch.space(Self.cpuBytes)
        cpus = batch.call(
            .schedGetaffinity, .value(0), .int(Self.cpuBytes), .address(affinity), doing: "reading the CPU affinity")
    }
    /// 4,096 CPUs.
    private static let cpuBytes = 512
    private static let onlineCPUs = sysconf(Int32(_SC_NPROCESSORS_ONLN))

    func collect(_ thread: SourceProcess.StoppedThread, _ innerTID: Int32, _ answers: CallResults) throws -> ThreadImage
    {
        let tid = thread.tracee.tid
        var image = ThreadImage()
        image.tid = innerTID
        image.registers = withUnsafeBytes(of: thread.registers.rewound(signalPending: thread.signalPending)) {
            Bytes($0)
        }
        image.xstate = Bytes(thread.extendedState)
        image.signalMask = thread.mask
        image.pending = try thread.tracee.pendingSignals(ofProcess: false).map { Bytes($0) }
        image.altstackBase = answers.word(stack)
        image.altstackFlags = UInt32(truncatingIfNeeded: answers.word(stack, at: 1))
        image.altstackSize = answers.word(stack, at: 2)
        var robust: (head: UInt64, length: UInt64) = (0, 0)
        try check(clx_get_robust_list(tid, &robust.head, &robust.length), "reading the robust list of task \(tid)")
        (image.robustListHead, image.robustListLength) = robust
        image.clearChildTid_p = answers.word(clearTID)
        let rseq = try thread.tracee.restartableSequences()
        (image.rseqAddress, image.rseqSize) = (rseq.address, rseq.size)
        (image.rseqSignature, image.rseqFlags) = (rseq.signature, rseq.flags)
        image.name = Bytes(answers.bytes(name).prefix { $0 != 0 })
        var policy: Int32 = 0, priority: Int32 = 0, nice: Int32 = 0
        try check(clx_sched_get(tid, &policy, &priority), "reading the scheduling of task \(tid)")
        try check(clx_getpriority(tid, &nice), "reading the niceness of task \(tid)")
        (image.schedulingPolicy, image.schedulingPriority, image.nice) = (policy, priority, nice)
        image.timerSlackNs = UInt64(answers[slack])
        image.parentDeathSignal = UInt32(bitPattern: answers.int32(deathSignal))
        image.credentials.securebits = UInt32(truncatingIfNeeded: answers[securebits])
        image.ioPriority = UInt32(truncatingIfNeeded: answers[ioPriority])
        let mask = answers.bytes(affinity).prefix(Int(answers[cpus]))
        if mask.reduce(0, { $0 + $1.nonzeroBitCount }) < Self.onlineCPUs { image.affinity = Bytes(mask) }
        return image
    }
}

/// Makes one thread's state again.
enum ThreadRestore {
    /// The calls to run in the thread itself, credentials last.
    ///
    /// - Parameter boundingSet: the capabilities that the stub's threads can have.
    static func batch(_ thread: ThreadImage, boundingSet: UInt64) -> CallBatch {
        var batch = CallBatch()
        if thread.altstackFlags & 2 == 0 {  // SS_DISABLE
            let stack = batch.words([thread.altstackBase, UInt64(thread.altstackFlags & ~1), thread.altstackSize])
            batch.call(.sigaltstack, .address(stack), .value(0), doing: "setting the alternate stack")
        }
        if thread.robustListHead != 0 {
            batch.call(
                .setRobustList, .value(thread.robustListHead), .value(thread.robustListLength),
                doing: "setting the robust list")
        }
        batch.call(.setTidAddress, .value(thread.clearChildTid_p), doing: "setting the TID address")
        if thread.rseqAddress != 0 {
            batch.call(
                .rseq, .value(thread.rseqAddress), .int(thread.rseqSize), .int(thread.rseqFlags),
                .int(thread.rseqSignature),
                doing: "registering restartable sequences")
        }
        let name = batch.bytes([UInt8](thread.name.prefix(15)) + [0])
        batch.call(.prctl, .value(15), .address(name), doing: "setting the thread's name")
        batch.call(.prctl, .value(29), .value(thread.timerSlackNs), doing: "setting the timer slack")
        if !thread.affinity.isEmpty {
            let mask = batch.bytes([UInt8](thread.affinity))
            batch.call(
                .schedSetaffinity, .value(0), .int(thread.affinity.count), .address(mask),
                doing: "setting the CPU affinity")
        }
        if thread.ioPriority != 0 {
            batch.call(.ioprioSet, .value(1), .value(0), .int(thread.ioPriority), doing: "setting the I/O priority")
        }
        CredentialsResource.drop(thread.credentials, held: boundingSet, &batch)
        if thread.parentDeathSignal != 0 {
            batch.call(.prctl, .value(1), .int(thread.parentDeathSignal), doing: "setting the parent death signal")
        }
        return batch
    }

    /// Queues signals for a thread, to run in it; any number of them, as many in each batch as its slot has room for.
    static func queue(_ records: [Bytes], for tid: Int32, of pid: Int32) -> [CallBatch] {
        stride(from: 0, to: records.count, by: 20).map { start in
            var batch = CallBatch()
            for info in records[start..<min(start + 20, records.count)] {
                let record = batch.bytes(info), signal = info.first ?? 0
                batch.call(
                    .rtTgsigqueueinfo, .int(pid), .int(tid), .int(signal), .address(record),
                    doing: "queueing signal \(signal)")
            }
            return batch
        }
    }

    /// What is set from outside: scheduling. Until here the thread ran at the engine's own priority.
    static func schedule(_ thread: ThreadImage, _ tracee: Tracee) throws(KernelError) {
        try check(
            clx_sched_set(tracee.tid, thread.schedulingPolicy, thread.schedulingPriority),
            "setting the scheduling of thread \(thread.tid)")
        try check(clx_setpriority(tracee.tid, thread.nice), "setting the niceness of thread \(thread.tid)")
    }

    /// The last touch: where it goes on, and what it blocks.
    static func finish(_ thread: ThreadImage, _ tracee: Tracee) throws {
        let registers = thread.registers.withUnsafeBytes { $0.loadUnaligned(as: user_regs_struct.self) }
        try tracee.setExtendedState([UInt8](thread.xstate))
        try tracee.setRegisters(registers)
        try tracee.setSignalMask(thread.signalMask)
    }
}

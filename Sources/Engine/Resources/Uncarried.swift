// State of a process and its threads that is looked for only to be refused by name.
import CLinux
import Glibc
import LinuxKernel
import Memory

/// What can be seen from outside, while the process runs.
enum Uncarried {
    static func obstacles(_ context: InspectContext, seccompFilters: Int?) throws -> [Obstacle] {
        var found: [Obstacle] = []
        let own = "/proc/\(context.pid)/ns/"
        if try ProcessFiles.link(own + "user") != ProcessFiles.link("/proc/self/ns/user") {
            found.append(context.obstacle("process", "a user namespace of its own, not carried yet"))
        }
        for (kind, forChildren) in [("pid", "pid_for_children"), ("time", "time_for_children")] {
            guard let now = try? ProcessFiles.link(own + kind), let later = try? ProcessFiles.link(own + forChildren)
            else { continue }
            if now != later {
                found.append(context.obstacle("process", "another \(kind) namespace for its children, not carried yet"))
            }
        }
        for task in try ProcessFiles.tasks(of: context.pid) {
            // One that has ended since it was listed has no state.
            guard let status = try? ProcessStatus(pid: context.pid, task: task) else { continue }
            let subject = task == context.pid ? "process" : "thread \(task)"
            let reasons =
                reasons(status, seccompFilters) + policy(of: task)
                + (task == context.pid ? [] : apart(task, from: context.pid))
            found += reasons.map { context.obstacle(subject, "\($0), not carried yet") }
        }
        return found
    }

    static func memory(_ context: InspectContext, _ areas: [TrackedArea]) throws -> [Obstacle] {
        try Pagemap(pid: context.pid).guardRegions(in: AddressRanges(areas.map(\.range))).ranges.map {
            context.obstacle("memory \($0.hex)", "a guard region (MADV_GUARD_INSTALL), not carried yet")
        } + policies(context)
    }

    /// NUMA policies of single ranges. A kernel without NUMA has neither them nor the file.
    private static func policies(_ context: InspectContext) throws -> [Obstacle] {
        guard let text = try? SmallFile.text("/proc/\(context.pid)/numa_maps") else { return [] }
        let ranges = text.split(separator: "\n").map { $0.split(separator: " ", maxSplits: 2) }.filter { $0.count > 1 }
        let others = ranges.filter { $0[1] != "default" }
        // Where no range has the default, it is the process that has a policy.
        if let first = others.first, others.count == ranges.count {
            return [context.obstacle("process", "a NUMA memory policy, \(first[1]), not carried yet")]
        }
        return others.map { context.obstacle("memory 0x\($0[0])", "a NUMA memory policy, \($0[1]), not carried yet") }
    }

    /// What the status file of a thread tells.
    static func reasons(_ status: ProcessStatus, _ seccompFilters: Int?) -> [String] {
        var found: [String] = []
        if status.numbers("Seccomp").first == 1 { found.append("seccomp's strict mode") }
        if let expected = seccompFilters, let filters = status.numbers("Seccomp_filters").first,
            filters != UInt64(expected)
        {
            found.append("\(filters) seccomp filters where the runtime installs \(expected)")
        }
        if (status["x86_Thread_features"] ?? "").contains("shstk") { found.append("a shadow stack") }
        for ((field, what), usual) in zip(speculation, ownSpeculation) {
            // A filter that the runtime installs may do the same to the stub.
            guard let choice = status[field], choice != usual,
                !(choice.contains("force") && status.numbers("Seccomp").first != 0)
            else { continue }
            found.append("a choice of its own about \(what) (PR_SET_SPECULATION_CTRL: \(choice))")
        }
        // The traps of injected calls are such signals, too.
        if (status.hex("SigPnd") | status.hex("ShdPnd")) & 1 << (UInt64(SIGTRAP) - 1) != 0 {
            found.append("a SIGTRAP that waits")
        }
        return found
    }

    /// What the registers of a thread tell: 64-bit code has one segment.
    static func reasons(_ registers: user_regs_struct) -> [String] {
        registers.cs == 0x33
            ? [] : ["it runs 32-bit code (segment 0x\(String(registers.cs, radix: 16))), not carried yet"]
    }

    /// How the processor may run ahead; without a choice of its own a thread has what this process has.
    private static let speculation = [
        ("Speculation_Store_Bypass", "speculative stores"), ("SpeculationIndirectBranch", "speculative branches"),
    ]
    private static let ownSpeculation = speculation.map { (try? ProcessStatus(pid: getpid()))?[$0.0] }

    /// What only a thread's tracer is told.
    static func reasons(_ tracee: Tracee) -> [String] {
        tracee.hasPorts() ? ["I/O ports (ioperm), not carried yet"] : []
    }

    /// Deadlines and the policies of BPF schedulers take more than a number to set.
    private static func policy(of task: Int32) -> [String] {
        var policy: Int32 = 0, priority: Int32 = 0
        guard clx_sched_get(task, &policy, &priority) >= 0 else { return [] }
        if policy & 0xff > 5 { return ["scheduling policy \(policy & 0xff)"] }
        var found: [String] = []
        // struct sched_attr, whose last two 32-bit fields are the bounds; both are 0 where the kernel knows none, and a
        // real-time thread is at the upper one without asking.
        var attributes = [UInt32](repeating: 0, count: 14)
        let asked = attributes.withUnsafeMutableBytes {
            clx_syscall(315, UInt64(task), UInt64(UInt(bitPattern: $0.baseAddress)), 56, 0, 0, 0)
        }
        let isRealTime = (1...2).contains(policy & 0xff)
        if asked >= 0, attributes[12] != 0 && !isRealTime || ![0, 1024].contains(attributes[13]) {
            found.append("bounds of its utilisation (\(attributes[12]) to \(attributes[13]))")
        }
        // PR_SCHED_CORE, PR_SCHED_CORE_GET
        var cookie: UInt64 = 0
        if withUnsafeMutablePointer(to: &cookie, { clx_prctl(62, 0, UInt64(task), 0, UInt64(UInt(bitPattern: $0))) })
            >= 0,
            cookie != 0
        {
            found.append("a group of core scheduling (PR_SCHED_CORE)")
        }
        return found
    }

    /// What a thread has of its own though threads mostly share it.
    private static func apart(_ task: Int32, from pid: Int32) -> [String] {
        var found: [String] = []
        for (type, what) in [(2, "a descriptor table"), (3, "a working directory and umask")] as [(Int32, String)]
        where clx_kcmp(pid, task, type, 0, 0) > 0 { found.append("\(what) of its own") }
        for kind in ["cgroup", "ipc", "mnt", "net", "uts"] {
            guard let its = try? ProcessFiles.link("/proc/\(pid)/task/\(task)/ns/\(kind)"),
                let leaders = try? ProcessFiles.link("/proc/\(pid)/ns/\(kind)"), its != leaders
            else { continue }
            found.append("a \(kind) namespace of its own")
        }
        return found
    }
}

/// What only the process itself can tell: asked in each thread.
struct UncarriedSettings {
    private var questions: [(call: Int, value: CallBatch.DataReference?, usual: Int64, what: String)] = []

    private var session: (keyring: Int, keys: Int)?
    private static let keyctl = SystemCall(rawValue: 250)
    /// The session keyring of this process; a process that has the same got it from the host.
    private static let ownSession = clx_syscall(250, 0, UInt64(bitPattern: -3), 0, 0, 0, 0)

    mutating func ask(_ batch: inout CallBatch) {
        // KEYCTL_GET_KEYRING_ID, without making one
        for (keyring, what) in [(-1, "a keyring of its own thread"), (-2, "a keyring of its process")]
            as [(Int64, String)]
        {
            let found = batch.call(Self.keyctl, .value(0), .int(keyring), .value(0), must: false, doing: "")
            questions.append((found, nil, -1, what))
        }
        let keys = batch.space(64)
        session = (
            batch.call(Self.keyctl, .value(0), .value(UInt64(bitPattern: -3)), .value(0), must: false, doing: ""),
            batch.call(  // KEYCTL_READ
                Self.keyctl, .value(11), .value(UInt64(bitPattern: -3)), .address(keys), .value(64), must: false,
                doing: "")
        )
        let mode = batch.space(8)
        // A kernel without NUMA has no such call, nor the policy.
        let policy = batch.call(
            .getMempolicy, .address(mode), .value(0), .value(0), .value(0), .value(0), must: false, doing: "")
        questions.append((policy, mode, 0, "a NUMA memory policy"))
        let counter = batch.space(8)
        let tsc = batch.call(.prctl, .value(25), .address(counter), must: false, doing: "")
        questions.append((tsc, counter, 1, "no access to the time stamp counter (PR_SET_TSC)"))
        for (option, usual, what) in [
            (34, 2, "a policy for memory errors (PR_MCE_KILL)"),
            (66, 0, "no mapping that is writable and executable (PR_SET_MDWE)"),
            (68, 0, "merging of all its memory (PR_SET_MEMORY_MERGE)"),
            (58, 0, "the state of a flusher of I/O (PR_SET_IO_FLUSHER)"),
        ] as [(UInt64, Int64, String)] {
            questions.append((batch.call(.prctl, .value(option), must: false, doing: ""), nil, usual, what))
        }
    }

    /// What was found to be not as usual; a call that this kernel does not know found nothing.
    func reasons(_ answers: CallResults) -> [String] {
        var found = questions.compactMap { call, value, usual, what -> String? in
            guard answers[call] >= 0 else { return nil }
            return (value.map { Int64(answers.int32($0)) } ?? answers[call]) == usual ? nil : "\(what), not carried yet"
        }
        if let session, answers[session.keys] > 0, answers[session.keyring] != Int64(Self.ownSession) {
            found.append("keys in its session keyring, not carried yet")
        }
        return found
    }
}

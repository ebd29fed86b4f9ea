// State of a process and its threads that is looked for only to be refused by name.
import CLinux
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

    /// Guard regions; a kernel that cannot tell of them (before 6.16) shows none.
    static func guardRegions(_ context: InspectContext, _ areas: [TrackedArea]) throws -> [Obstacle] {
        var found: [Obstacle] = [], query = Pagemap.Query()
        (query.any, query.returned) = ([.guarded], [.guarded])
        let pages = try Pagemap(pid: context.pid)
        for area in areas {
            try? pages.scan(area.range, query) { range, _ in
                found.append(
                    context.obstacle("memory \(range.hex)", "a guard region (MADV_GUARD_INSTALL), not carried yet"))
            }
        }
        return found
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
        return found
    }

    /// Deadlines and the policies of BPF schedulers take more than a number to set.
    private static func policy(of task: Int32) -> [String] {
        var policy: Int32 = 0, priority: Int32 = 0
        guard clx_sched_get(task, &policy, &priority) >= 0, policy & 0xff > 5 else { return [] }
        return ["scheduling policy \(policy & 0xff)"]
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

    mutating func ask(_ batch: inout CallBatch) {
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
        questions.compactMap { call, value, usual, what in
            guard answers[call] >= 0 else { return nil }
            return (value.map { Int64(answers.int32($0)) } ?? answers[call]) == usual ? nil : "\(what), not carried yet"
        }
    }
}

// How soon a thread gets a CPU.
import CLinux
import Glibc

/// A thread's urgency, as the freeze needs it: of our own threads, of the stub's and of a copy's that is being killed.
public enum ThreadPriority: Sendable {
    /// SCHED_IDLE: runs when nobody else wants to.
    case idle
    case normal
    /// Niceness -20: preferred over ordinary programs, shares with them.
    case preferred
    /// SCHED_RR: runs before every ordinary thread. Only for stretches of milliseconds; a real-time thread cannot start
    /// a container runtime.
    case realTime

    /// Applies it to the calling thread. What the machine does not allow is left: it only makes things slower.
    public func apply() { apply(to: clx_gettid()) }

    /// Applies it to a thread.
    public func apply(to tid: Int32) {
        if self != .realTime { _ = clx_sched_set(tid, self == .idle ? 5 : Int32(SCHED_OTHER), 0) }
        _ = clx_setpriority(tid, self == .normal || self == .idle ? 0 : -20)
        if self == .realTime { _ = clx_sched_set(tid, Int32(SCHED_RR), 1) }
    }
}

// ptrace(2) on one task. Every call belongs on the thread that seized the task (any other gets ESRCH).
import CLinux
import Glibc

/// A task that this thread traces: seized, stopped and continued.
public struct Tracee: Sendable, Hashable {
    /// TID in the tracer's PID namespace.
    public let tid: Int32

    public struct Options: OptionSet, Sendable {
        public let rawValue: UInt64
        public init(rawValue: UInt64) { self.rawValue = rawValue }
        public static let systemCallGood = Options(rawValue: 1)
        public static let clone = Options(rawValue: 1 << 3)
        public static let exec = Options(rawValue: 1 << 4)
        public static let exit = Options(rawValue: 1 << 6)
        public static let exitKill = Options(rawValue: 1 << 20)
        public static let suspendSeccomp = Options(rawValue: 1 << 21)
    }

    /// Why a task stopped.
    public enum Stop: Sendable, Equatable {
        /// PTRACE_INTERRUPT, a new task's first stop, or the end of a group stop (PTRACE_EVENT_STOP).
        case interrupted
        /// The same while the process is stopped by this signal, SIGSTOP or one of its kind. The task goes on when its
        /// tracer lets it, and is stopped again when it is detached.
        case groupStop(Int32)
        /// PTRACE_EVENT_CLONE and its kin, by number.
        case event(Int32)
        /// The entry or exit of a system call (after PTRACE_SYSCALL, with `.systemCallGood`).
        case systemCall
        /// A signal is about to be delivered.
        case signal(Int32)
        case exited(Int32)
        case killed(Int32)

        /// Does the task stand where its tracer can look at it as it is, between two instructions of its own?
        public var isTracers: Bool {
            switch self {
            case .interrupted, .groupStop: true
            default: false
            }
        }
    }

    /// How a task goes on.
    public enum Way: Sendable {
        /// PTRACE_CONT.
        case freely
        /// PTRACE_SYSCALL: to the next entry or exit of a system call.
        case toSystemCall
        /// PTRACE_SINGLESTEP.
        case oneStep
    }

    /// PTRACE_SEIZE: attaches without stopping.
    public static func seize(_ tid: Int32, _ options: Options = [.systemCallGood]) throws(KernelError) -> Tracee {
        try check(clx_ptrace(0x4206, tid, 0, options.rawValue), "seizing task \(tid)")
        return Tracee(tid: tid)
    }

    /// Names a task that the kernel attached by itself (PTRACE_O_TRACECLONE).
    public init(tid: Int32) { self.tid = tid }

    public func setOptions(_ options: Options) throws(KernelError) {
        try check(clx_ptrace(0x4200, tid, 0, options.rawValue), "setting trace options of task \(tid)")
    }
    /// PTRACE_INTERRUPT; the stop is awaited by `wait`.
    public func interrupt() throws(KernelError) { try check(clx_ptrace(0x4207, tid, 0, 0), "interrupting task \(tid)") }
    /// Lets the task go on, delivering a signal if one is given.
    public func resume(_ way: Way = .freely, signal: Int32 = 0) throws(KernelError) {
        let request =
            switch way {
            case .freely: 7
            case .toSystemCall: 24
            case .oneStep: 9
            }
        try check(clx_ptrace(request, tid, 0, UInt64(signal)), "continuing task \(tid)")
    }

    /// Lets a task go on, the same way, after a stop that its tracer did not want: a signal is delivered, with all its
    /// effects, and a group stop begins or ends for the process without keeping this task from going on.
    ///
    /// - Returns: false if the stop is the task's end, or an event that its tracer has to deal with.
    public func pass(_ stop: Stop, _ way: Way = .freely) throws(KernelError) -> Bool {
        switch stop {
        case .interrupted, .groupStop, .systemCall: try resume(way)
        case .signal(let number): try resume(way, signal: number)
        case .event, .exited, .killed: return false
        }
        return true
    }
    /// PTRACE_DETACH, delivering a signal if one is given.
    public func detach(_ signal: Int32 = 0) throws(KernelError) {
        try check(clx_ptrace(17, tid, 0, UInt64(signal)), "detaching task \(tid)")
    }

    /// Waits for the next stop.
    public func wait() throws(KernelError) -> Stop {
        var status: Int32 = 0
        while true {
            let result = clx_waitpid(tid, &status, Int32(bitPattern: 0x4000_0000))  // __WALL
            if result == -EINTR { continue }
            try check(result, "waiting for task \(tid)")
            return Self.decode(status)
        }
    }

    /// Waits for the next stop, which may never come: a frozen cgroup, or the kernel, can hold a task.
    ///
    /// - Parameter patience: asked every 50 ms; throws to end the wait.
    public func wait(_ patience: () throws -> Void) throws -> Stop {
        // Some 20 µs pass until an interrupted task has stopped, milliseconds if it has to wait for a processor.
        var pause: UInt32 = 10, asked = monotonicNow()
        while true {
            if let stop = try poll() { return stop }
            usleep(pause)
            pause = min(pause + pause / 8 + 1, 1000)
            guard monotonicNow() - asked > 50_000_000 else { continue }
            try patience()
            asked = monotonicNow()
        }
    }

    /// The stop that has already happened, if any.
    public func poll() throws(KernelError) -> Stop? {
        var status: Int32 = 0
        let result = clx_waitpid(tid, &status, Int32(bitPattern: 0x4000_0000) | WNOHANG)
        if try check(result, "waiting for task \(tid)") == 0 { return nil }
        return Self.decode(status)
    }

    /// Collects the ends of tasks that are dying, up to two seconds: until their tracer has, nobody sees the end of
    /// their process.
    public static func collect(_ tasks: [Tracee]) {
        var left = tasks
        for _ in 0..<2000 {
            left.removeAll { task in
                do throws(KernelError) {
                    switch try task.poll() {
                    case .exited, .killed: return true
                    default: return false
                    }
                } catch { return true }  // not traced by us any more
            }
            if left.isEmpty { return }
            usleep(1000)
        }
    }

    private static func decode(_ status: Int32) -> Stop {
        if status & 0x7f == 0 { return .exited((status >> 8) & 0xff) }
        if status & 0xff != 0x7f { return .killed(status & 0x7f) }
        let signal = (status >> 8) & 0xff
        switch status >> 16 {
        case 0: return signal == SIGTRAP | 0x80 ? .systemCall : .signal(signal)
        case 128: return signal == SIGTRAP ? .interrupted : .groupStop(signal)
        case let event: return .event(event)
        }
    }

    /// PTRACE_GETEVENTMSG: of a clone event, the new task's TID.
    public func eventMessage() throws(KernelError) -> Int32 {
        var message: UInt64 = 0
        try check(clx_ptrace_ptr(0x4201, tid, 0, &message), "reading the event of task \(tid)")
        return Int32(truncatingIfNeeded: message)
    }

    // ---- State ---------------------------------------------------------------------------------------------

    public func registers() throws(KernelError) -> user_regs_struct {
        var registers = user_regs_struct()
        try check(clx_ptrace_ptr(12, tid, 0, &registers), "reading registers of task \(tid)")
        return registers
    }
    public func setRegisters(_ registers: user_regs_struct) throws(KernelError) {
        var registers = registers
        try check(clx_ptrace_ptr(13, tid, 0, &registers), "setting registers of task \(tid)")
    }

    /// NT_X86_XSTATE: as long as this CPU's features make it.
    public func extendedState() throws(KernelError) -> [UInt8] {
        var size = 0
        let state = [UInt8](unsafeUninitializedCapacity: 16384) { buffer, count in
            var vector = iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)
            size = Int(clx_ptrace_ptr(0x4204, tid, 0x202, &vector))
            count = size < 0 ? 0 : vector.iov_len
        }
        try check(size, "reading the extended state of task \(tid)")
        return state
    }
    public func setExtendedState(_ state: [UInt8]) throws(KernelError) {
        let result = state.withUnsafeBytes { bytes in
            // SAFETY: the kernel only reads from the buffer, which lives for the call.
            var vector = iovec(iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count)
            return clx_ptrace_ptr(0x4205, tid, 0x202, &vector)
        }
        try check(result, "setting the extended state of task \(tid)")
    }

    /// Blocked signals; bit 0 is signal 1.
    public func signalMask() throws(KernelError) -> UInt64 {
        var mask: UInt64 = 0
        try check(clx_ptrace_ptr(0x420a, tid, 8, &mask), "reading the signal mask of task \(tid)")
        return mask
    }
    public func setSignalMask(_ mask: UInt64) throws(KernelError) {
        var mask = mask
        try check(clx_ptrace_ptr(0x420b, tid, 8, &mask), "setting the signal mask of task \(tid)")
    }

    /// Pending signals (PTRACE_PEEKSIGINFO) as siginfo_t records of 128 bytes, of the task or of its process.
    public func pendingSignals(ofProcess: Bool) throws(KernelError) -> [[UInt8]] {
        struct Arguments { var offset: UInt64, flags: UInt32, count: Int32 }
        var found: [[UInt8]] = []
        while true {
            var arguments = Arguments(offset: UInt64(found.count), flags: ofProcess ? 1 : 0, count: 32)
            var buffer = [UInt8](repeating: 0, count: 32 * 128)
            let count = withUnsafeMutablePointer(to: &arguments) { pointer in
                buffer.withUnsafeMutableBytes {
                    clx_ptrace_ptr(0x4209, tid, UInt64(UInt(bitPattern: pointer)), $0.baseAddress)
                }
            }
            try check(count, "reading pending signals of task \(tid)")
            for i in 0..<Int(count) { found.append(Array(buffer[i * 128..<(i + 1) * 128])) }
            if count < 32 { return found }
        }
    }

    /// Whether the task has exactly so many seccomp filters; false where the kernel does not tell.
    public func hasSeccompFilters(_ count: UInt64) -> Bool {
        // PTRACE_SECCOMP_GET_FILTER without a buffer: how long a filter is.
        clx_ptrace_ptr(0x420c, tid, count, nil) == -Int(ENOENT)
            && (count == 0 || clx_ptrace_ptr(0x420c, tid, count - 1, nil) > 0)
    }

    /// Are its system calls turned into signals (PR_SET_SYSCALL_USER_DISPATCH)? A kernel before 6.4 does not tell.
    public func dispatchesSystemCalls() -> Bool {
        // struct ptrace_sud_config: mode, selector, offset, length.
        var configuration: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        let size = UInt64(MemoryLayout.size(ofValue: configuration))
        return clx_ptrace_ptr(0x4211, tid, size, &configuration) >= 0 && configuration.0 != 0
    }

    /// May it use I/O ports (ioperm(2))? Not told of iopl(2).
    public func hasPorts() -> Bool {
        var word: UInt64 = 0
        return withUnsafeMutablePointer(to: &word) { word in
            var vector = iovec(iov_base: word, iov_len: 8)
            return clx_ptrace_ptr(0x4204, tid, 0x201, &vector) >= 0  // NT_386_IOPERM
        }
    }

    /// struct ptrace_rseq_configuration; address 0: not registered.
    public struct RestartableSequences: Sendable {
        public var address: UInt64 = 0
        public var size: UInt32 = 0
        public var signature: UInt32 = 0
        public var flags: UInt32 = 0
        var pad: UInt32 = 0
        public init() {}
    }
    public func restartableSequences() throws(KernelError) -> RestartableSequences {
        var configuration = RestartableSequences()
        try check(
            clx_ptrace_ptr(0x420f, tid, UInt64(MemoryLayout<RestartableSequences>.size), &configuration),
            "reading the rseq registration of task \(tid)")
        return configuration
    }
}

// What the engine refuses, and what went wrong while it worked.
import LinuxKernel

/// State that cannot be carried: found before the freeze, named, and reason to refuse.
public struct Obstacle: Error, Sendable, Hashable, Codable, CustomStringConvertible {
    public var pid: Int32
    /// Name of the process.
    public var process: String
    /// What it is: "fd 9", "memory 0x7f00-0x7f10", "timer 3".
    public var subject: String
    /// Why it cannot be carried: "io_uring, not carried yet".
    public var reason: String
    /// It may go by itself in a moment, as a child does that ends: worth waiting for.
    public var mayPass: Bool

    public init(pid: Int32, process: String, subject: String, reason: String, mayPass: Bool = false) {
        (self.pid, self.process, self.subject, self.reason) = (pid, process, subject, reason)
        self.mayPass = mayPass
    }
    public var description: String { "\(subject) of pid \(pid) (\(process)): \(reason)" }
}

/// A failure of the engine.
public enum EngineError: Error, Sendable, CustomStringConvertible {
    /// State that cannot be carried.
    case obstacles([Obstacle])
    /// The process ended while the engine worked on it.
    case exited(pid: Int32, how: String)
    /// A traced task did something that the engine did not expect.
    case unexpectedStop(task: Int32, doing: String, stop: String)
    /// A thread neither stops nor comes to the end of the calls injected into it: the kernel or a frozen cgroup holds
    /// it.
    case heldUp(task: Int32, doing: String)
    /// The process has executed another program: nothing that is known of its memory holds any more.
    case executed(pid: Int32)
    /// An image that cannot be what a capture made.
    case invalidImage(String)

    public var description: String {
        switch self {
        case .obstacles(let list): list.map(\.description).joined(separator: "; ")
        case .exited(let pid, let how): "process \(pid) ended (\(how))"
        case .unexpectedStop(let task, let doing, let stop): "task \(task) stopped unexpectedly while \(doing): \(stop)"
        case .heldUp(let task, let doing):
            "task \(task) is held while \(doing): its cgroup is frozen, or it waits in the kernel for a device; look at its state in /proc/\(task)/status"
        case .executed(let pid):
            "process \(pid) (\(processName(pid))) has executed another program (execve) since the migration began; begin it again"
        case .invalidImage(let what): "invalid process image: \(what)"
        }
    }
}

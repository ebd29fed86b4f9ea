// The agent's end of a guard: starting it, and telling it that it is not needed any more.
import CLinux
import Glibc
import LinuxKernel

/// How an agent starts guards: its own executable, and what it tells it.
public struct GuardCommand: Sendable {
    public var executable: String
    /// Arguments before the guard's own.
    public var arguments: [String]

    public init(executable: String = "/proc/self/exe", arguments: [String] = ["apus", "guard"]) {
        (self.executable, self.arguments) = (executable, arguments)
    }
}

/// The guard of one migration, seen from its session.
///
/// The two share a socket: the guard says one byte when it watches, the session one when it is over. It costs the
/// freeze nothing: all it lives from is the journal, which is written anyway.
final class GuardProcess: Sendable {
    private let pid: Int32
    private let pidfd: FileDescriptor
    private let socket: FileDescriptor

    /// Starts the guard of a journal; `awaitReadiness` comes before the first touch of anything.
    init(_ command: GuardCommand, journal: String) throws {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        try checkC(socketpair(AF_UNIX, type, 0, &ends), "making a guard's socket")
        socket = FileDescriptor(owning: ends[0])
        let theirs = FileDescriptor(owning: ends[1])
        let arguments = command.arguments + ["--journal", journal, "--agent", String(getpid())]
        var plan = SpawnPlan(
            path: command.executable, arguments: arguments,
            environment: Subprocess.ownEnvironment().map { "\($0.key)=\($0.value)" })
        (plan.descriptors, plan.hasNewSession) = ((theirs.number, -1, 2), true)
        let (result, handle) = withExtendedLifetime(theirs) { plan.spawn() }
        pid = try check(result, "starting a guard (\(command.executable))")
        pidfd = FileDescriptor(owning: handle)
    }

    /// Waits until the guard watches.
    func awaitReadiness() throws {
        var request = pollfd(fd: socket.number, events: Int16(POLLIN), revents: 0)
        var byte: UInt8 = 0
        guard poll(&request, 1, 10_000) > 0, recv(socket.number, &byte, 1, 0) == 1 else {
            throw KernelError("waiting for the guard", .timedOut)
        }
    }

    /// The session is over: the guard ends, or plays what the journal still holds. Waits for its end.
    func end() {
        var byte: UInt8 = 1
        _ = send(socket.number, &byte, 1, Int32(MSG_NOSIGNAL))
        collect()
    }

    /// There is nothing to guard.
    func discard() {
        kill(pid, SIGKILL)
        collect()
    }

    /// Leaves the guard to itself: it goes on when this process ends.
    private func collect() {
        var status: Int32 = 0
        while clx_waitpid(pid, &status, 0) == -EINTR {}
    }
}

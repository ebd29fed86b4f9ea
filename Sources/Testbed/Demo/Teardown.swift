// An end by Ctrl-C, SIGTERM or SIGHUP removes the testbed as any other end does.
import Glibc
import LinuxKernel
import Synchronization

// Written once before the handler is installed; a handler may call write(2).
nonisolated(unsafe) private var signalPipe: Int32 = -1

/// Runs an action once, when the program is told to end, and then ends it.
public final class Teardown: Sendable {
    private struct State {
        var action: (@Sendable () -> Void)?
        var isEnding = false
    }
    private let state: Mutex<State>

    /// Installs the handlers; one object a process.
    public init(_ action: @escaping @Sendable () -> Void) throws {
        state = Mutex(State(action: action))
        var ends: [Int32] = [-1, -1]
        try checkC(pipe(&ends), "making a pipe")
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        signalPipe = ends[1]
        let reader = FileDescriptor(owning: ends[0])
        try OwnThread.start("teardown") { [self] in
            var number: UInt8 = 0
            while read(reader.number, &number, 1) != 1 {}
            // Taking the lock waits for a step under way; none begins after it.
            let action = state.withLock { state -> (@Sendable () -> Void)? in
                state.isEnding = true
                return state.action
            }
            guard let action else { return }
            print("\ninterrupted: removing the testbed ...")
            action()
            _exit(128 + Int32(number))
        }
        for number in [SIGINT, SIGTERM, SIGHUP] {
            signal(number) { number in
                let saved = errno
                var byte = UInt8(truncatingIfNeeded: number)
                _ = write(signalPipe, &byte, 1)
                errno = saved
            }
        }
    }

    /// Makes something that the action removes; throws instead once the end has begun.
    public func making<T>(_ body: () throws -> T) throws -> T {
        // What is made stays with the caller's thread: the lock only keeps the end away meanwhile.
        nonisolated(unsafe) var made: T?
        try state.withLock { state in
            guard !state.isEnding else { throw TestbedError("interrupted") }
            made = try body()
        }
        return made!
    }

    /// The ordinary end: does the action now. When a signal has begun it, this waits for the end of the process.
    public func finish() {
        let (begun, action) = state.withLock { state -> (Bool, (@Sendable () -> Void)?) in
            defer { if !state.isEnding { state.action = nil } }
            return (state.isEnding, state.action)
        }
        while begun { sleep(1000) }
        action?()
    }

    /// Forgets the action: a signal only ends the process.
    public func abandon() {
        for number in [SIGINT, SIGTERM, SIGHUP] { signal(number, SIG_DFL) }
        let begun = state.withLock { state -> Bool in
            if !state.isEnding { state.action = nil }
            return state.isEnding
        }
        while begun { sleep(1000) }
    }

    /// Whether a signal has begun the end.
    public var isEnding: Bool { state.withLock { $0.isEnding } }
}

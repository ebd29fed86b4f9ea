// An end by Ctrl-C, SIGTERM or SIGHUP removes the testbed as any other end does.
import Glibc
import LinuxKernel

// Written once before the handler is installed; a handler may call write(2).
nonisolated(unsafe) private var signalPipe: Int32 = -1

/// Runs an action once, when the program is told to end, and then ends it.
public final class Teardown: @unchecked Sendable {
    private let lock = Lock()
    private var action: (@Sendable () -> Void)?
    private var ending = false

    /// Installs the handlers; one object a process.
    public init(_ action: @escaping @Sendable () -> Void) throws {
        self.action = action
        var ends: [Int32] = [-1, -1]
        try checkC(pipe(&ends), "making a pipe")
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        signalPipe = ends[1]
        let reader = FileDescriptor(owning: ends[0])
        try OwnThread.start("teardown") { [self] in
            var number: UInt8 = 0
            while read(reader.number, &number, 1) != 1 {}
            // Taking the lock waits for a step under way; none begins after it.
            let action = lock.locked { () -> (@Sendable () -> Void)? in
                ending = true
                return self.action
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
        try lock.locked {
            guard !ending else { throw TestbedError("interrupted") }
            return try body()
        }
    }

    /// The ordinary end: does the action now. When a signal has begun it, this waits for the end of the process.
    public func finish() {
        let (begun, action) = lock.locked { () -> (Bool, (@Sendable () -> Void)?) in
            defer { if !ending { self.action = nil } }
            return (ending, self.action)
        }
        while begun { sleep(1000) }
        action?()
    }

    /// Forgets the action: a signal only ends the process.
    public func abandon() {
        for number in [SIGINT, SIGTERM, SIGHUP] { signal(number, SIG_DFL) }
        let begun = lock.locked { () -> Bool in
            if !ending { action = nil }
            return ending
        }
        while begun { sleep(1000) }
    }

    /// Whether a signal has begun the end.
    public var isEnding: Bool { lock.locked { ending } }
}

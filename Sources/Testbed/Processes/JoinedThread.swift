// Threads of our own: for what belongs to a thread in Linux (network namespace, scheduling class, PDEATHSIG),
// which Swift's pool threads must not be given.
import CLinux
import Glibc
import LinuxKernel

/// A pthread that runs one closure.
final class JoinedThread: @unchecked Sendable {
    // Only the creator's `join` reads it, after `init` wrote it.
    private var thread = pthread_t()

    private final class Body {
        let run: () -> Void
        init(_ run: @escaping () -> Void) { self.run = run }
    }

    /// Starts the thread. `name` (at most 15 bytes) is what /proc and top show.
    init(named name: String, _ run: @escaping @Sendable () -> Void) throws {
        let body = Unmanaged.passRetained(
            Body {
                name.withCString { _ = clx_prctl(15 /* PR_SET_NAME */, UInt64(UInt(bitPattern: $0)), 0, 0, 0) }
                run()
            })
        // SAFETY: the pointer is one retained `Body`, taken over exactly once, by the new thread.
        let failure = pthread_create(
            &thread, nil,
            { raw in
                Unmanaged<Body>.fromOpaque(raw!).takeRetainedValue().run()
                return nil
            }, body.toOpaque())
        if failure != 0 {
            body.release()
            throw KernelError("starting thread \(name)", Errno(failure))
        }
    }

    /// Waits for the thread's end; to be called once.
    func join() { pthread_join(thread, nil) }

    /// Runs a closure on a thread made for it and waits for its result.
    static func run<T>(named name: String, _ body: () throws -> T) throws -> T {
        // SAFETY: `withoutActuallyEscaping` is sound because this function joins the thread before it returns.
        try withoutActuallyEscaping(body) { body in
            nonisolated(unsafe) let body = body
            nonisolated(unsafe) var result: Result<T, any Error>?
            let thread = try JoinedThread(named: name) { result = Result { try body() } }
            thread.join()
            return try result!.get()
        }
    }
}

/// Sleeps until a deadline passes or the condition holds, asking every `interval` milliseconds.
func waitUntil(seconds: Double, interval: Double = 5, _ condition: () throws -> Bool) rethrows -> Bool {
    let deadline = monotonicNow() + Int64(seconds * 1e9)
    while true {
        if try condition() { return true }
        if monotonicNow() >= deadline { return false }
        usleep(UInt32(interval * 1000))
    }
}

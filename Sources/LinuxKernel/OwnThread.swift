// Threads of our own: for work that blocks (Swift's pool has only as many threads as the machine has cores), and for
// what belongs to a thread in Linux: ptrace, network namespace, scheduling class, PDEATHSIG. A thread of Swift's pool
// must never come back changed.
import CLinux
import Glibc

/// A pthread that runs one closure.
public final class OwnThread: @unchecked Sendable {
    // Written by `init`, read by `join` of its creator.
    private var thread = pthread_t()

    private final class Work {
        let body: () -> Void
        init(_ body: @escaping () -> Void) { self.body = body }
    }

    /// Starts a thread; whoever made it calls `join` once, or `start` instead.
    ///
    /// - Parameter name: for /proc, ps and debuggers; the first 15 bytes count.
    public init(_ name: String, _ body: @escaping @Sendable () -> Void) throws(KernelError) {
        let work = Unmanaged.passRetained(
            Work {
                // PR_SET_NAME (15) of the calling thread.
                _ = name.withCString { clx_prctl(15, UInt64(UInt(bitPattern: $0)), 0, 0, 0) }
                body()
            })
        let result = pthread_create(
            &thread, nil,
            { argument in
                // SAFETY: the retained object above, taken over exactly once, by the thread that starts.
                Unmanaged<Work>.fromOpaque(argument!).takeRetainedValue().body()
                return nil
            }, work.toOpaque())
        if result != 0 {
            work.release()
            throw KernelError("starting thread \(name)", Errno(result))
        }
    }

    /// Waits for the thread's end.
    public func join() { pthread_join(thread, nil) }

    /// Starts a thread and leaves it to itself.
    public static func start(_ name: String, _ body: @escaping @Sendable () -> Void) throws(KernelError) {
        pthread_detach(try OwnThread(name, body).thread)
    }

    /// Runs a closure on a thread made for it and waits for its end.
    ///
    /// - Throws: when there is no room for another thread; what the closure throws is in the result.
    public static func run<T, Failure>(
        _ name: String, _ body: () throws(Failure) -> T
    ) throws(KernelError) -> Result<T, Failure> {
        // SAFETY: the closure does not escape, and nobody else touches the result: the thread is joined before either
        // goes.
        nonisolated(unsafe) var result: Result<T, Failure>?
        let failure: KernelError? = withoutActuallyEscaping(body) { body in
            nonisolated(unsafe) let body = body
            do throws(KernelError) {
                try OwnThread(name) {
                    do throws(Failure) { result = .success(try body()) } catch { result = .failure(error) }
                }.join()
                return nil
            } catch { return error }
        }
        if let failure { throw failure }
        return result!
    }
}

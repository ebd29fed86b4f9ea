// Threads of our own, for work that blocks: Swift's pool has only as many threads as the machine has cores.
import CLinux
import Glibc

/// A pthread that does one thing and ends.
public enum OwnThread {
    private final class Work {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Starts a thread and leaves it to itself.
    ///
    /// - Parameter name: for ps and debuggers; the first 15 bytes count.
    public static func start(_ name: String, _ body: @escaping @Sendable () -> Void) throws(KernelError) {
        var thread = pthread_t()
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
        pthread_detach(thread)
    }
}

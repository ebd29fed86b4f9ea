// Threads of our own: for blocking work, and for calls whose effect belongs to a thread.
import CLinux
import Glibc

/// A pthread that does one thing and ends.
public enum OwnThread {
    private final class Work {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    private final class Box<T>: @unchecked Sendable { var value: T? }

    /// Starts a thread and leaves it to itself.
    ///
    /// - Parameter name: for ps and debuggers; the first 15 bytes count.
    public static func start(_ name: String, _ body: @escaping @Sendable () -> Void) throws(KernelError) {
        pthread_detach(try make(name, body))
    }

    /// Runs `body` on a thread of its own and waits for its result. setns and unshare end with that thread.
    public static func run<T: Sendable>(_ body: @escaping @Sendable () -> T) -> T {
        let box = Box<T>()
        guard let thread = try? make("apus-once", { box.value = body() }) else {
            fatalError("no thread could be started: the machine is out of memory or threads")
        }
        pthread_join(thread, nil)
        return box.value!
    }

    private static func make(_ name: String, _ body: @escaping @Sendable () -> Void) throws(KernelError) -> pthread_t {
        var thread = pthread_t()
        let work = Unmanaged.passRetained(
            Work {
                // PR_SET_NAME (15) of the calling thread.
                _ = name.withCString { clx_prctl(15, UInt64(UInt(bitPattern: $0)), 0, 0, 0) }
                body()
            })
        // SAFETY: the retained object is taken over, exactly once, by the thread that starts.
        let result = pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Work>.fromOpaque(argument!).takeRetainedValue().body()
                return nil
            }, work.toOpaque())
        if result != 0 {
            work.release()
            throw KernelError("starting thread \(name)", Errno(result))
        }
        return thread
    }
}

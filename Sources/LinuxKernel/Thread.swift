// Threads of our own: ptrace, setns and page pumps belong on threads that nothing else uses.
import CLinux
import Glibc
import Synchronization

/// Starts a detached thread with a name of at most 15 characters.
public func startThread(_ name: String, _ body: @escaping @Sendable () -> Void) {
    final class Box { let name: String, body: @Sendable () -> Void
        init(_ name: String, _ body: @escaping @Sendable () -> Void) { (self.name, self.body) = (name, body) }
    }
    let box = Unmanaged.passRetained(Box(name, body))
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    pthread_attr_setstacksize(&attributes, 1 << 20)
    var thread = pthread_t()
    let result = pthread_create(&thread, &attributes, { argument in
        let box = Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue()
        box.name.withCString { _ = clx_prctl(15, UInt64(UInt(bitPattern: $0)), 0, 0, 0) }  // PR_SET_NAME
        box.body()
        return nil
    }, box.toOpaque())
    pthread_attr_destroy(&attributes)
    precondition(result == 0, "the system has no room for another thread")
}

/// Runs a function on a thread of its own and waits for its result.
public func onOwnThread<T: Sendable>(_ name: String, _ body: @escaping @Sendable () throws -> T) throws -> T {
    let outcome = Outcome<T>(), done = Semaphore()
    startThread(name) {
        outcome.result = Result { try body() }
        done.signal()
    }
    done.wait()
    return try outcome.result!.get()
}

/// Written by one thread before a semaphore is signalled, read by another after it.
private final class Outcome<T>: @unchecked Sendable { var result: Result<T, any Error>? }

/// A counting semaphore (sem_overview(7)).
public final class Semaphore: @unchecked Sendable {
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    public init() { sem_init(semaphore, 0, 0) }
    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }
    public func signal() { sem_post(semaphore) }
    public func wait() { while sem_wait(semaphore) == -1 {} }
}

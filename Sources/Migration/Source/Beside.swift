// Something that is done on a thread of its own while this one goes on.
import LinuxKernel
import Synchronization

/// Work on another thread, and what comes of it.
final class Beside<Value>: @unchecked Sendable {
    // Written by the thread before it sets `over`, read after that.
    private var outcome: Result<Value, any Error>?
    private let over = Atomic(false)
    private var thread: OwnThread?

    init(_ name: String, _ work: @escaping @Sendable () throws -> Value) throws(KernelError) {
        thread = try OwnThread(name) { [self] in
            outcome = Result { try work() }
            over.store(true, ordering: .releasing)
        }
    }

    var isOver: Bool { over.load(ordering: .acquiring) }

    /// Waits for the end; any number of times, by the thread that began it.
    @discardableResult func join() -> Result<Value, any Error> {
        thread?.join()
        thread = nil
        return outcome!
    }
}

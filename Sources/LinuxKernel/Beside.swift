// Something that is done on a thread of its own while this one goes on.
import Dispatch
import Synchronization

/// Work on another thread, and what comes of it.
public final class Beside<Value>: @unchecked Sendable {
    // Written before the thread is told to begin, taken by it after that: what the work holds goes with it.
    private var work: (@Sendable () throws -> Value)?
    /// Used by the thread that made it.
    private var hasBegun = false
    private let begun = DispatchSemaphore(value: 0)
    // Written by the thread before it sets `over`, read after that.
    private var outcome: Result<Value, any Error>?
    private let over = Atomic(false)
    private var thread: OwnThread?

    /// Makes a thread that waits for its work: to make one takes a while.
    ///
    /// - Parameter name: the thread's.
    public init(waiting name: String) throws(KernelError) {
        thread = try OwnThread(name) { [self] in
            begun.wait()
            if let work = work.take() { outcome = Result { try work() } }
            over.store(true, ordering: .releasing)
        }
    }

    /// Makes a thread, and has it begin.
    public convenience init(_ name: String, _ work: @escaping @Sendable () throws -> Value) throws(KernelError) {
        try self.init(waiting: name)
        begin(work)
    }

    /// Gives the thread its work. Once, by the thread that made it.
    public func begin(_ work: @escaping @Sendable () throws -> Value) {
        (self.work, hasBegun) = (work, true)
        begun.signal()
    }

    /// The work has ended.
    public var isOver: Bool { over.load(ordering: .acquiring) }

    /// Waits for the end; any number of times, by the thread that made it.
    ///
    /// - Returns: nil if it was given no work.
    @discardableResult public func join() -> Result<Value, any Error>? {
        if let thread {
            if !hasBegun { begun.signal() }
            thread.join()
        }
        thread = nil
        return outcome
    }
}

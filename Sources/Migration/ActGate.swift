// Keeps a container's handover and what else is done to it apart.
import Glibc
import LinuxKernel
import Synchronization

/// What is done to a container from outside (a signal, say) and its handover exclude each other: done in the middle, it
/// would be done to the copy that ends. A container has one gate on each host.
public final class ActGate: Sendable {
    private let state = Mutex((acts: 0, isClosed: false))

    public init() {}

    /// Does something to the container; first waits for the end of a handover that is under way.
    ///
    /// - Returns: nil if the handover was not over in time, and nothing was done.
    public func act<T>(patience seconds: Double, _ body: () throws -> T) rethrows -> T? {
        let deadline = monotonicNow() + Int64(seconds * 1e9)
        while !enter() {
            if monotonicNow() > deadline { return nil }
            usleep(1000)
        }
        defer { state.withLock { $0.acts -= 1 } }
        return try body()
    }

    private func enter() -> Bool {
        state.withLock { state in
            if state.isClosed { return false }
            state.acts += 1
            return true
        }
    }

    /// The container is about to be stopped: from here on nothing is begun, and what was begun is waited for.
    ///
    /// - Parameter whileWaiting: throws to give up; the gate is then still closed.
    func close(whileWaiting: () throws -> Void) rethrows {
        state.withLock { $0.isClosed = true }
        while state.withLock({ $0.acts > 0 }) {
            try whileWaiting()
            usleep(200)
        }
    }

    /// It is settled where the container lives.
    func open() { state.withLock { $0.isClosed = false } }
}

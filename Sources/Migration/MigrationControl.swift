// The handle by which a running migration is steered and watched from other threads.
import Synchronization

/// Steers one migration.
public final class MigrationControl: Sendable {
    private struct State {
        var cancelled = false
        var triggered = false
        var progress = MigrationProgress()
    }
    private let state = Mutex(State())

    public init() {}

    /// Asks for the end of the migration; it has an effect until the promise is given.
    public func cancel() { state.withLock { $0.cancelled = true } }
    public var isCancelled: Bool { state.withLock { $0.cancelled } }

    /// Gives the trigger that `HandoverPolicy.atTrigger` waits for.
    public func triggerHandover() { state.withLock { $0.triggered = true } }
    public var isTriggered: Bool { state.withLock { $0.triggered } }

    /// The newest snapshot.
    public var progress: MigrationProgress { state.withLock { $0.progress } }
    public func update(_ change: (inout MigrationProgress) -> Void) { state.withLock { change(&$0.progress) } }
}

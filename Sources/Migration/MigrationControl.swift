// How others steer and watch a migration that runs on its own thread.
import CLinux
import Glibc
import LinuxKernel
import Synchronization

/// What a migration and those who watch it share: wishes go in, progress comes out. Never waits.
public final class MigrationControl: Sendable {
    /// What an operator decided about a migration in doubt.
    public enum Resolution: String, Codable, Sendable, CaseIterable {
        /// The source's copy is the one that lives.
        case source
        /// The destination's copy is the one that lives.
        case destination
    }

    private let cancelFlag = Atomic(false)
    private let handoverFlag = Atomic(false)
    private let snapshot = Mutex(MigrationProgress())
    private let decision = Mutex<Resolution?>(nil)

    /// An eventfd that is readable once the migration has been cancelled or the trigger given.
    let wakeup = FileDescriptor(owning: clx_eventfd())

    public init() {}

    private func wake() {
        var one: UInt64 = 1
        // It is full only if it has been readable for long.
        _ = Glibc.write(wakeup.number, &one, 8)
    }

    /// Asks for the end of the migration; heeded until the promise, afterwards without effect.
    public func cancel() {
        cancelFlag.store(true, ordering: .releasing)
        wake()
    }
    public var isCancelled: Bool { cancelFlag.load(ordering: .acquiring) }

    /// Gives the trigger that the handover policy at-trigger waits for.
    public func triggerHandover() {
        handoverFlag.store(true, ordering: .releasing)
        wake()
    }
    public var handoverTriggered: Bool { handoverFlag.load(ordering: .acquiring) }

    /// Ends doubt by an operator's word.
    public func resolve(_ resolution: Resolution) { decision.withLock { $0 = resolution } }
    public var resolution: Resolution? { decision.withLock { $0 } }

    /// As of the last `update`.
    public var progress: MigrationProgress { snapshot.withLock { $0 } }
    /// Changes the snapshot; for the migration's own threads, a few times a second, never in the freeze.
    public func update(_ change: (inout MigrationProgress) -> Void) { snapshot.withLock { change(&$0) } }
}

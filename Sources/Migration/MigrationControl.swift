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
    private let trigger = Atomic<Int64>(0)
    private let snapshot = Mutex((progress: MigrationProgress(), meter: RateMeter()))
    private let began = monotonicNow()
    private let decision = Mutex<Resolution?>(nil)

    private let event = Mutex<FileDescriptor?>(FileDescriptor(owning: clx_eventfd()))

    /// An eventfd that is readable once the migration has been cancelled or the trigger given; nil: it is over.
    var wakeup: FileDescriptor? { event.withLock { $0 } }

    /// What else is done to the container keeps out of the handover by it.
    let gate: ActGate

    public init(gate: ActGate = ActGate()) { self.gate = gate }

    /// The migration is over: nothing waits for a wish any more.
    public func finish() { event.withLock { $0 = nil } }

    private func wake() {
        var one: UInt64 = 1
        // It is full only if it has been readable for long.
        if let wakeup { _ = Glibc.write(wakeup.number, &one, 8) }
    }

    /// Asks for the end of the migration; heeded until the promise, afterwards without effect.
    public func cancel() {
        cancelFlag.store(true, ordering: .releasing)
        wake()
    }
    public var isCancelled: Bool { cancelFlag.load(ordering: .acquiring) }

    /// Gives the trigger that the handover policy at-trigger waits for.
    public func triggerHandover() {
        // The first trigger counts.
        _ = trigger.compareExchange(expected: 0, desired: monotonicNow(), ordering: .acquiringAndReleasing)
        wake()
    }
    public var handoverTriggered: Bool { triggeredAt != nil }
    /// When the trigger was given, CLOCK_MONOTONIC nanoseconds; nil: not yet.
    public var triggeredAt: Int64? {
        let instant = trigger.load(ordering: .acquiring)
        return instant == 0 ? nil : instant
    }

    /// Ends doubt by an operator's word.
    public func resolve(_ resolution: Resolution) { decision.withLock { $0 = resolution } }
    public var resolution: Resolution? { decision.withLock { $0 } }

    /// As of the last `update`; the time and the rate are those of now.
    public var progress: MigrationProgress {
        snapshot.withLock { snapshot in
            var progress = snapshot.progress
            if progress.state.isFinal { return progress }
            let now = monotonicNow()
            progress.elapsed = Double(now - began) / 1e9
            progress.rate = snapshot.meter.rate(at: now)
            return progress
        }
    }
    /// Changes the snapshot; for the migration's own threads, never in the freeze.
    public func update(_ change: (inout MigrationProgress) -> Void) {
        snapshot.withLock { snapshot in
            change(&snapshot.progress)
            snapshot.meter.note(snapshot.progress.bytesSent, at: monotonicNow())
        }
    }
}

/// Bytes a second over the last second.
struct RateMeter {
    private static let window: Int64 = 1_000_000_000
    /// Total bytes at instants, oldest first, the first of them at or before the window's start.
    private var samples: [(at: Int64, bytes: UInt64)] = []

    /// - Parameter now: CLOCK_MONOTONIC, nanoseconds; never goes back.
    mutating func note(_ bytes: UInt64, at now: Int64) {
        // Twenty a second are enough; the newest always counts.
        if samples.count > 1, now - samples[samples.count - 2].at < Self.window / 20 { samples.removeLast() }
        samples.append((now, bytes))
        while samples.count > 1, samples[1].at <= now - Self.window { samples.removeFirst() }
    }

    func rate(at now: Int64) -> Double {
        guard let newest = samples.last, now - newest.at < Self.window else { return 0 }
        let start = max(samples[0].at, now - Self.window)
        guard now > start else { return 0 }
        return (Double(newest.bytes) - bytes(at: start)) / (Double(now - start) / 1e9)
    }

    /// Between two samples, in proportion.
    private func bytes(at instant: Int64) -> Double {
        let before = samples.lastIndex { $0.at <= instant } ?? 0
        guard before + 1 < samples.count else { return Double(samples[before].bytes) }
        let (from, to) = (samples[before], samples[before + 1])
        return Double(from.bytes) + Double(to.bytes - from.bytes) * Double(instant - from.at) / Double(to.at - from.at)
    }
}

// One direction of an emulated link, as the control thread sees it.
import CLinux
import Glibc
import LinuxKernel
import Synchronization

/// Moves frames from one TAP interface to another, on a thread of its own, until the process ends.
final class LinkLane: Sendable {
    /// What the thread does not read at every frame, and hears of by `changes`.
    private let quality: Mutex<LinkQuality>
    let changes = Atomic<Int>(0)
    /// Wakes the thread when it waits.
    let bell: FileDescriptor
    private let failure = Mutex<String?>(nil)

    // Written by the thread only.
    let frames = Atomic<UInt64>(0)
    let bytes = Atomic<UInt64>(0)
    let lost = Atomic<UInt64>(0)
    let overflowed = Atomic<UInt64>(0)
    let early = Atomic<UInt64>(0)
    let refused = Atomic<UInt64>(0)

    init(_ name: String, from source: TAP, to destination: TAP, _ quality: LinkQuality) throws {
        self.quality = Mutex(quality)
        bell = FileDescriptor(owning: try check(clx_eventfd(), "making an eventfd"))
        // Handed to the thread, which alone uses it from then on.
        nonisolated(unsafe) var pump = try FramePump(self, from: source, to: destination)
        try OwnThread.start(name) { [self] in
            // It stands for another machine: it must not wait for a processor. Where the machine does not allow that,
            // it is preferred.
            ThreadPriority.realTime.apply()
            _ = clx_prctl(29 /* PR_SET_TIMERSLACK */, 1, 0, 0, 0)
            let end = pump.run()
            failure.withLock { $0 = end }
        }
    }

    /// The quality from now on, for frames that have not begun to leave.
    func set(_ value: LinkQuality) {
        quality.withLock { $0 = value }
        changes.add(1, ordering: .releasing)
        var one: UInt64 = 1
        _ = write(bell.number, &one, 8)
    }
    var current: LinkQuality { quality.withLock { $0 } }

    var counters: LinkCounters {
        var result = LinkCounters()
        (result.frames, result.bytes) = (frames.load(ordering: .relaxed), bytes.load(ordering: .relaxed))
        (result.lost, result.overflowed) = (lost.load(ordering: .relaxed), overflowed.load(ordering: .relaxed))
        (result.early, result.refused) = (early.load(ordering: .relaxed), refused.load(ordering: .relaxed))
        return result
    }
    /// Why it has ended, if it has.
    var end: String? { failure.withLock { $0 } }
}

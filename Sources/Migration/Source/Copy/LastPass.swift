// The last pass over the memory: it needs the layout alone, and so runs beside the capture of everything else.
import Dispatch
import LinuxKernel
import Memory
import Synchronization

/// A pass over the stopped process, on a thread of its own.
final class LastPass: Sendable {
    // Used by the pass's own thread until it has been joined, but for `help`.
    nonisolated(unsafe) private let tracker: DirtyTracker
    private let thread = Mutex<OwnThread?>(nil)
    private let outcome = Mutex<Result<DirtyPass, any Error>?>(nil)

    private let request: Mutex<([TrackedArea], AddressRanges)?> = Mutex(nil)
    private let begun = DispatchSemaphore(value: 0)

    /// Makes the thread, before the freeze.
    init(_ tracker: DirtyTracker) throws {
        self.tracker = tracker
        let started = try OwnThread("apus-last-pass") { [self] in
            begun.wait()
            guard let (areas, mappedAnew) = request.withLock({ $0 }) else { return }
            ThreadPriority.realTime.apply()
            let result = Result {
                var (pass, _) = try self.tracker.pass(stopped: true) { areas }
                let lost = try self.tracker.contents(of: mappedAnew, in: areas)
                pass.pages = pass.pages.union(lost)
                pass.discards = pass.discards.subtracting(lost)
                return pass
            }
            outcome.withLock { $0 = result }
        }
        thread.withLock { $0 = started }
    }

    /// The process is stopped. `mappedAnew` counts as changed as a whole: it has no content at the destination any
    /// more.
    func begin(_ areas: [TrackedArea], mappedAnew: AddressRanges) {
        request.withLock { $0 = (areas, mappedAnew) }
        begun.signal()
    }

    /// Helps to finish, and what was found; nil if it never began.
    func result() throws -> DirtyPass? {
        tracker.help()
        wait()
        return try outcome.withLock { $0 }?.get()
    }

    /// Nobody touches the tracker any more when this returns.
    func wait() {
        begun.signal()
        thread.withLock { thread in
            thread?.join()
            thread = nil
        }
    }
}

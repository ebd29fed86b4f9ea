// The last pass over the memory: it needs the layout alone, and so runs beside the capture of everything else.
import LinuxKernel
import Memory

/// A pass over the stopped process, on a thread of its own.
final class LastPass: Sendable {
    // Used by the pass's own thread until it has been joined, but for `help`.
    nonisolated(unsafe) private let tracker: DirtyTracker
    private let work: Beside<DirtyPass>

    /// Makes the thread, before the freeze.
    init(_ tracker: DirtyTracker) throws {
        self.tracker = tracker
        work = try Beside(waiting: "apus-last-pass")
    }

    /// The process is stopped. `mappedAnew` counts as changed as a whole: it has no content at the destination any
    /// more.
    func begin(_ areas: [TrackedArea], mappedAnew: AddressRanges) {
        work.begin { [self] in
            ThreadPriority.realTime.apply()
            var (pass, _) = try tracker.pass(stopped: true) { areas }
            let lost = try tracker.contents(of: mappedAnew, in: areas)
            pass.pages = pass.pages.union(lost)
            pass.discards = pass.discards.subtracting(lost)
            return pass
        }
    }

    /// Helps to finish, and what was found; nil if it never began.
    func result() throws -> DirtyPass? {
        tracker.help()
        return try work.join()?.get()
    }

    /// Nobody touches the tracker any more when this returns.
    func wait() { work.join() }
}

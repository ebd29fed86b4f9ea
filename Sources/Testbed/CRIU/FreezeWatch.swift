// Notices the instant at which CRIU begins to freeze a container: it tells nobody.
import Containers
import Glibc
import LinuxKernel
import Synchronization

/// Looks at a container's freezer several times a millisecond.
final class FreezeWatch: Sendable {
    /// What has become of a container.
    enum Hold: Equatable { case none, begun, complete }

    private struct State: Sendable {
        var begun: Int64?
        var failure: (any Error)?
    }
    private let state = Mutex(State())
    private let over = Atomic(false)
    private let thread = Mutex<OwnThread?>(nil)

    /// - Parameters:
    ///   - pid: the container's first process.
    ///   - cgroup: the container's, as the runtime was told.
    ///   - body: runs once, when every process has stopped, on the watch's own thread.
    init(pid: Int32, cgroup: String, _ body: @escaping @Sendable () throws -> Void) throws {
        let place = try CgroupPlace(pid: pid, cgroup: cgroup)
        let watcher = try OwnThread("criu-watch") { [self] in
            // Gone: CRIU has done, or the container has ended; the checkpoint's result will tell.
            while !over.load(ordering: .acquiring), let hold = Self.look(pid, place) {
                if hold != .none { state.withLock { $0.begun = $0.begun ?? monotonicNow() } }
                if hold == .complete {
                    do { try body() } catch { state.withLock { $0.failure = error } }
                    return
                }
                usleep(100)
            }
        }
        thread.withLock { $0 = watcher }
    }

    /// nil: it is gone.
    private static func look(_ pid: Int32, _ place: CgroupPlace) -> Hold? {
        guard let status = try? SmallFile.text("/proc/\(pid)/status") else { return nil }
        return hold(
            freezer: place.freezer.flatMap { try? SmallFile.text($0 + "/freezer.state") },
            events: place.unified.flatMap { try? SmallFile.text($0 + "/cgroup.events") }, status: status)
    }

    /// CRIU freezes the cgroup, which takes it up to a tenth of a second to see; then it traces every process, and
    /// thaws.
    ///
    /// - Parameters:
    ///   - freezer: freezer.state of cgroup v1.
    ///   - events: cgroup.events of cgroup v2.
    ///   - status: the process's /proc/PID/status.
    static func hold(freezer: String?, events: String?, status: String) -> Hold {
        let isTraced = status.split(separator: "\n").contains { $0.hasPrefix("TracerPid:") && !$0.hasSuffix("\t0") }
        if isTraced || freezer == "FROZEN" || events?.contains("frozen 1") == true { return .complete }
        return freezer == "FREEZING" ? .begun : .none
    }

    /// Ends the watch.
    ///
    /// - Returns: CLOCK_MONOTONIC nanoseconds of the freeze's begin; nil: it was not seen, and `body` did not run.
    /// - Throws: what `body` threw.
    func end() throws -> Int64? {
        over.store(true, ordering: .releasing)
        let watcher = thread.withLock { thread -> OwnThread? in
            defer { thread = nil }
            return thread
        }
        watcher?.join()
        return try state.withLock { state in
            if let failure = state.failure { throw failure }
            return state.begun
        }
    }
}

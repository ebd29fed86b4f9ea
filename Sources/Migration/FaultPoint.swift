// Numbered places where a test kills one of our processes. Outside tests this is one comparison.
import Glibc
import LinuxKernel
import Synchronization

/// A place in a migration at which a process can be made to die.
public enum FaultPoint: Int, Sendable, CaseIterable, Codable {
    // Source
    case sourceOffered = 1, sourceAttached, sourceArmed, sourceStaged, sourceCopying, sourceStopped, sourceLastPass
    case sourceCaptured, sourceRedirected, sourceRepaired, sourceSilenced, sourceFrozen, sourcePromisedUnsent,
        sourcePromised
    case sourceReleased, sourceKilled, sourceRetired
    // Destination
    case destinationAccepted = 101, destinationCreated, destinationStaged, destinationCopying, destinationMuted
    case destinationRestored, destinationPrepared, destinationReleasing, destinationDisarmed, destinationReleased
    case destinationTold
    // The guard, or an agent that comes back: first those of either side, then the source's, then the destination's
    case guardStarted = 201, guardFoundDeath
    case guardRepaired, guardOpened, guardThawed, guardUndone, guardAsked, guardKilled, guardRetired
    case guardAborted, guardRemoved, guardPortOpened, guardRecorded, guardAnswering

    /// Dies here by SIGKILL, kills another process, or waits, if the environment asks for it. `APUS_FAULT` holds,
    /// divided by commas: `NUMBER` (this process dies), `NUMBER:PIDFILE` (another process; a guard writes the file that
    /// `APUS_GUARD_PIDFILE` names) or `NUMBER:hold=FILE` (this thread waits until the file is there). Each hit is
    /// appended to `APUS_FAULT_LOG`.
    public static func reach(_ point: FaultPoint) {
        guard let plans else { return }
        for plan in plans where plan.point == point { plan.strike() }
    }

    private static let plans: [Plan]? = getenv("APUS_FAULT").map {
        String(cString: $0).split(separator: ",").compactMap { Plan($0) }
    }

    private struct Plan: Sendable {
        enum Action { case die, kill(String), hold(String) }
        let point: FaultPoint
        let action: Action
        /// One fault a process.
        private static let struck = Atomic(false)

        init?(_ text: Substring) {
            let parts = text.split(separator: ":", maxSplits: 1).map(String.init)
            guard let number = parts.first.flatMap({ Int($0) }), let point = FaultPoint(rawValue: number) else {
                return nil
            }
            self.point = point
            guard parts.count > 1 else { action = .die; return }
            action = parts[1].hasPrefix("hold=") ? .hold(String(parts[1].dropFirst(5))) : .kill(parts[1])
        }

        func strike() {
            if Self.struck.exchange(true, ordering: .relaxed) { return }
            if let log = getenv("APUS_FAULT_LOG").map({ String(cString: $0) }),
                let file = try? FileDescriptor(opening: log, O_WRONLY | O_CREAT | O_APPEND)
            {
                let line = "\(point.rawValue) \(point) \(monotonicNow())\n"
                _ = write(file.number, line, line.utf8.count)
            }
            switch action {
            case .die:
                kill(getpid(), SIGKILL)
                while true { pause() }
            case .hold(let file): while access(file, F_OK) != 0 { usleep(1000) }
            case .kill(let file):
                // A guard may be just starting.
                for _ in 0..<2000 where access(file, F_OK) != 0 { usleep(1000) }
                if let text = try? SmallFile.text(file), let pid = Int32(text) { kill(pid, SIGKILL) }
            }
        }
    }
}

// Numbered places where a test kills one of our processes. Outside tests this is one comparison.
import Glibc
import LinuxKernel

/// A place in a migration at which a process can be made to die.
public enum FaultPoint: Int, Sendable, CaseIterable, Codable {
    // Source
    case sourceOffered = 1, sourceAttached, sourceArmed, sourceStaged, sourceCopying, sourceStopped, sourceLastPass
    case sourceCaptured, sourceRedirected, sourceRepaired, sourceSilenced, sourceFrozen, sourcePromisedUnsent, sourcePromised
    case sourceReleased, sourceKilled, sourceRetired
    // Destination
    case destinationAccepted = 101, destinationCreated, destinationStaged, destinationCopying, destinationMuted
    case destinationRestored, destinationPrepared, destinationReleasing, destinationDisarmed, destinationReleased
    case destinationTold

    /// Dies here by SIGKILL, or kills the process that is named, if the environment asks for it:
    /// `APUS_FAULT=NUMBER` (this process) or `APUS_FAULT=NUMBER:PIDFILE` (another). Each hit is appended to `APUS_FAULT_LOG`.
    public static func reach(_ point: FaultPoint) {
        guard let plan, plan.point == point else { return }
        plan.strike()
    }

    private static let plan = Plan()

    private struct Plan: Sendable {
        let point: FaultPoint
        let victimFile: String?
        let log: String?

        init?() {
            guard let text = getenv("APUS_FAULT").map({ String(cString: $0) }) else { return nil }
            let parts = text.split(separator: ":", maxSplits: 1).map(String.init)
            guard let number = Int(parts[0]), let point = FaultPoint(rawValue: number) else { return nil }
            self.point = point
            victimFile = parts.count > 1 ? parts[1] : nil
            log = getenv("APUS_FAULT_LOG").map { String(cString: $0) }
        }

        func strike() {
            if let log, let file = try? FileDescriptor(opening: log, O_WRONLY | O_CREAT | O_APPEND) {
                let line = "\(point.rawValue) \(point)\n"
                _ = write(file.number, line, line.utf8.count)
            }
            guard let victimFile else {
                kill(getpid(), SIGKILL)
                while true { pause() }
            }
            if let text = try? SmallFile.text(victimFile), let pid = Int32(text) { kill(pid, SIGKILL) }
        }
    }
}

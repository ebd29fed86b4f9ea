// A handover that cannot be now: the source runs on for a while, and it is tried again.
import Engine
import Glibc
import LinuxKernel

/// Why the handover cannot be now though it may soon.
struct Postponed: Error {
    let why: String
    /// What to do if it stays so.
    var advice: String?
}

extension Postponed {
    init(_ obstacles: [Obstacle]) { self.init(why: obstacles.map(\.description).joined(separator: "; ")) }
}

/// Lets the source run between two tries, for as long as the plan says.
struct Postponement {
    private let source: SourceContext
    private let copier: Copier
    private let handover: Handover
    /// When the first try had failed.
    private var since: Int64?

    init(_ source: SourceContext, _ copier: Copier, _ handover: Handover) {
        (self.source, self.copier, self.handover) = (source, copier, handover)
    }

    /// Makes ready for the next try.
    ///
    /// - Throws: the reason, when it has lasted for too long.
    mutating func wait(_ reason: Postponed) throws {
        let (name, host, control) = (source.container.name, source.host, source.control)
        var way = WayBack(of: name, host.log)
        handover.letRun(&way)
        if !way.failures.isEmpty {
            throw MigrationError(
                .failed, "\(name) could not go on as before: \(way.failures.joined(separator: "; "))")
        }
        source.listen()
        let now = monotonicNow(), frozenAt = handover.limit.frozenAt, stopped = frozenAt == 0 ? now : frozenAt
        source.report.handovers.append(
            HandoverReport(
                start: Double(stopped - source.decidedAt) / 1e6, frozen: Double(now - stopped) / 1e6,
                postponed: reason.why))
        control.update { $0.remark = "handover postponed: \(reason.why)" }
        let words = "handover postponed, it stood still for \((now - stopped) / 1_000_000) ms: \(reason.why)"
        host.log("container \(name): \(words)")
        since = since ?? now
        guard now < since! + Int64(source.plan.postponeLimit * 1e9) else { throw tooOften(reason) }
        source.enter(.copying)
        try handover.takeBack()
        usleep(100_000)
        if control.isCancelled { throw MigrationError.cancelled }
        if copier.isTracking { try copier.pass() }
    }

    private func tooOften(_ reason: Postponed) -> MigrationError {
        let frozen = source.report.handovers.map(\.frozen)
        let longest = frozen.max() ?? 0
        let tried =
            longest == 0
            ? ""
            : " (the last of \(frozen.count) handovers tried, which stopped the container for \(Int(longest.rounded(.up))) ms at most)"
        return MigrationError(.refused, reason.why + tried, advice: reason.advice)
    }
}

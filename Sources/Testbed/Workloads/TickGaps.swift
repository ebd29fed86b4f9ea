// When a workload did not run, by its own ticker (Workloads/ticks.h).
import Migration

/// A gap between two ticks.
public struct TickGap: Codable, Sendable {
    public var microseconds: Double
    /// CLOCK_MONOTONIC nanoseconds.
    public var start: Int64
    public var end: Int64
    private enum CodingKeys: String, CodingKey { case microseconds = "us", start = "start_ns", end = "end_ns" }
}

extension [TickGap] {
    /// The gap in which a migration's blackout lies. nil: it is not among those that the ticker keeps.
    private func blackout(_ report: MigrationReport) -> TickGap? { onClock(of: report).blackoutOnItsClock(report) }

    private func blackoutOnItsClock(_ report: MigrationReport) -> TickGap? {
        // The gap ends on the clock that the service has after the move.
        let lag = report.clockLag ?? 0
        guard var gap = first(where: { $0.start < report.releasedAt - lag && $0.end > report.frozenAt }) else {
            return nil
        }
        gap.end += lag
        gap.microseconds += Double(lag) / 1000
        return gap
    }
    /// That gap, milliseconds.
    func downtime(_ report: MigrationReport) -> Double? { blackout(report).map { $0.microseconds / 1000 } }
    /// How much of it came after the release, milliseconds.
    func delay(_ report: MigrationReport) -> Double? {
        blackout(report).map { Swift.max(0, Double($0.end - report.releasedAt) / 1e6) }
    }
    /// The largest other gap between the migration's decision and its release, milliseconds.
    func disturbance(_ report: MigrationReport) -> Double {
        let others = onClock(of: report).filter { $0.start > report.decidedAt && $0.end <= report.frozenAt }
        return (others.map(\.microseconds).max() ?? 0) / 1000
    }
}

extension [TickGap] {
    /// The service's clock need not be that of the report.
    private func onClock(of report: MigrationReport) -> [TickGap] {
        guard let offset = report.containerOffset else { return self }
        return map { TickGap(microseconds: $0.microseconds, start: $0.start + offset, end: $0.end + offset) }
    }
}

extension [Move] {
    /// What a client noticed of each move, with the downtime that the service's own ticker tells.
    func observations(by recording: ProbeRecording, and gaps: [TickGap]) -> [Observation] {
        zip(self, observations(by: recording)).map { move, observation in
            var result = observation
            result.workloadDowntime = move.report.flatMap { gaps.downtime($0) }
            return result
        }
    }
}

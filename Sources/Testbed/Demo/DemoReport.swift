// What the demo found out, as data and as a table.
import Migration

/// The content of demo-report.json. Times are milliseconds where nothing else is said.
public struct DemoReport: Codable, Sendable {
    /// One migration as everybody saw it.
    public struct Move: Codable, Sendable {
        public var number: Int
        public var technique: Technique
        public var source: String
        public var destination: String
        /// Freeze begun to release.
        public var engineDowntime: Double
        /// Largest gap between two times that the server's own clock told, minus the usual one; of those that touch the
        /// freeze.
        public var workloadDowntime: Double
        /// Largest gap between two answers, minus the usual one; of those that touch the freeze.
        public var clientDowntime: Double
        public var migrationTime: Double
        public var phases: [MigrationReport.Phase]
        /// Rounds or syncs before the freeze, then the last pass.
        public var passes: Int
        public var pagesSent: UInt64
        public var bytesSent: UInt64
        public var overhead: Double
        /// Longest time from the instant at which a request was due to its answer.
        public var slowestRequest: Double
        public var client: RedisRecording.Window
        /// Every value of the fill was compared after the move.
        public var content: RedisFiller.Check?
        public var migration: MigrationReport
    }
    public struct Settings: Codable, Sendable {
        /// The testbed's.
        public var instance: String
        /// Bytes of values.
        public var memory: UInt64
        /// Requests a second.
        public var rate: Double
        public var backhaul: LinkRate
        public var repetitions: Int
        public var values: String
        public var valueGenerator: ValueGenerator
    }
    public struct Calm: Codable, Sendable {
        public var usualGap: Double
        public var gapP99: Double
        public var p50: Double
        public var p99: Double
        public var realTimeClient: Bool
    }

    public var version = 1
    /// ISO 8601, UTC.
    public var startedAt = ""
    public var machine = Machine.here()
    public var settings: Settings
    public var network: [NetworkCheck] = []
    /// The client before the first move.
    public var calm: Calm?
    public var moves: [Move] = []
    public var timeoutEvents: [RetransmissionEvent] = []
    public var tcp: TCPCounters?
    public var verdicts: [Verdict] = []
    /// What went wrong, in words; empty when all is well.
    public var problems: [String] = []
    public var passed: Bool = false
    public var seconds = 0.0

    public init(settings: Settings) { self.settings = settings }
}

extension DemoReport {
    /// Writes the report, replacing the file in one step.
    public func write(to path: String) throws { try writeJSON(self, to: path) }
    public func json() throws -> String { String(decoding: try jsonBytes(self), as: UTF8.self) }

    /// At most 120 columns.
    public func text() -> String {
        var lines = [
            "",
            "  redis, \(ByteCount(settings.memory)) of values · \(grouped(settings.rate)) requests/s"
                + " · backhaul \(settings.backhaul) · \(machine.processors) processors, Linux \(machine.kernel)",
            "",
        ]
        if !moves.isEmpty {
            lines += moves.count <= 12 ? movesTable() : []
            if moves.count > 3 {
                if moves.count <= 12 { lines.append("") }
                lines += summaryTable()
            }
            lines.append("")
            lines += phasesTable()
            lines.append("")
        }
        let width = verdicts.map(\.name.count).max() ?? 0
        for verdict in verdicts {
            lines.append("  \(verdict.passed ? "✓" : "✗") \(verdict.name.padded(width))  \(verdict.detail)")
        }
        for problem in problems { lines.append("  ! \(problem)") }
        return lines.joined(separator: "\n")
    }

    private func movesTable() -> [String] {
        var table = TextTable([
            .init("technique"), .init("from → to"), .init("engine\ndowntime\nms", .right),
            .init("workload\ndowntime\nms", .right), .init("client\ndowntime\nms", .right),
            .init("migration\ntime\nms", .right),
            .init("rounds\nor syncs", .right), .init("pages\nsent", .right), .init("sent\nMiB", .right),
            .init("over-\nhead\n%", .right),
            .init("slowest\nrequest\nms", .right),
        ])
        for move in moves {
            table.add([
                move.technique.rawValue, "\(short(move.source)) → \(short(move.destination))",
                grouped(move.engineDowntime, digits: 2),
                grouped(move.workloadDowntime, digits: 2), grouped(move.clientDowntime, digits: 2),
                grouped(move.migrationTime), grouped(Double(move.passes)), grouped(Double(move.pagesSent)),
                grouped(Double(move.bytesSent) / 1_048_576, digits: 1), grouped(move.overhead * 100, digits: 1),
                grouped(move.slowestRequest, digits: 1),
            ])
        }
        return table.lines()
    }

    /// A host's name without the instance's prefix.
    private func short(_ host: String) -> String {
        host.hasPrefix(settings.instance + "-") ? String(host.dropFirst(settings.instance.count + 1)) : host
    }

    /// Median and worst of each technique.
    private func summaryTable() -> [String] {
        var table = TextTable([
            .init("technique"), .init("moves", .right), .init("engine ms\nmedian", .right), .init("worst", .right),
            .init("workload ms\nmedian", .right), .init("worst", .right), .init("client ms\nmedian", .right),
            .init("worst", .right),
            .init("migration ms\nmedian", .right), .init("timeouts", .right),
        ])
        for technique in Technique.allCases {
            let own = moves.filter { $0.technique == technique }
            guard !own.isEmpty else { continue }
            var row = [technique.rawValue, "\(own.count)"]
            for path in [\Move.engineDowntime, \.workloadDowntime, \.clientDowntime] {
                let values = own.map { $0[keyPath: path] }.sorted()
                row += [grouped(median(values), digits: 2), grouped(values.last!, digits: 2)]
            }
            row.append(grouped(median(own.map(\.migrationTime).sorted())))
            row.append("\(own.reduce(0) { $0 + $1.client.timeouts })")
            table.add(row)
        }
        return table.lines()
    }

    private func median(_ sorted: [Double]) -> Double {
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }

    /// Phases of the last move of each technique.
    private func phasesTable() -> [String] {
        var names: [String] = []
        let shown = Technique.allCases.compactMap { technique in moves.last { $0.technique == technique } }
        for move in shown { for phase in move.phases where !names.contains(phase.name) { names.append(phase.name) } }
        guard !names.isEmpty else { return [] }
        var table = TextTable(
            [.init("phases, ms")] + names.map { TextTable.Column($0, .right) } + [.init("ready at", .right)])
        for move in shown {
            table.add(
                [move.technique.rawValue]
                    + names.map { name in
                        move.phases.first { $0.name == name }.map { grouped($0.duration, digits: 1) } ?? "–"
                    } + [move.migration.readyAt.map { grouped($0, digits: 1) } ?? "–"])
        }
        return table.lines()
    }
}

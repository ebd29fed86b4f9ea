// Where the microseconds of the freeze went, over many migrations of one kind.
import Migration

/// The steps of the freeze in migrations of one kind, on both sides.
public struct FreezeSteps: Codable, Sendable {
    /// Microseconds.
    public struct Step: Codable, Sendable {
        public var name: String
        /// "source" or "destination".
        public var side: String
        /// Median instant after the freeze began.
        public var start: Double
        public var median: Double
        public var min: Double
        public var max: Double
    }
    public var title: String
    public var migrations: Int
    public var steps: [Step] = []
    /// Median of what no step of the source covers, microseconds.
    public var uncovered: Double
    /// Median engine downtime, microseconds.
    public var downtime: Double

    public init(_ title: String, _ reports: [MigrationReport]) {
        self.title = title
        migrations = reports.count
        // A step that was taken several times counts as their sum, from the first one on.
        var found: [String: (side: String, name: String, starts: [Double], durations: [Double])] = [:]
        for report in reports {
            var own: [String: (StepReport, Double)] = [:]
            // What the destination did before the freeze (an area that appeared while copying) is no part of it.
            for step in report.steps where step.start + step.duration > 0 {
                let key = step.side + "\n" + step.name
                own[key, default: (step, 0)].1 += step.duration
            }
            for (key, (step, duration)) in own {
                found[key, default: (step.side, step.name, [], [])].starts.append(step.start)
                found[key]!.durations.append(duration)
            }
        }
        steps = found.values.map {
            Step(
                name: $0.name, side: $0.side, start: $0.starts.median, median: $0.durations.median,
                min: $0.durations.min()!, max: $0.durations.max()!)
        }.sorted { ($0.start, $0.side) < ($1.start, $1.side) }
        uncovered = reports.map(Self.uncovered).median
        downtime = reports.map { $0.engineDowntime * 1000 }.median
    }

    private static func uncovered(_ report: MigrationReport) -> Double {
        let end = report.engineDowntime * 1000
        var (at, covered) = (0.0, 0.0)
        for step in report.steps.filter({ $0.side == "source" }).sorted(by: { $0.start < $1.start }) {
            let (from, to) = (Swift.max(at, step.start), Swift.min(end, step.start + step.duration))
            if to > from { (covered, at) = (covered + to - from, to) }
        }
        return end - covered
    }
}

extension FreezeSteps {
    /// One kind with its spread, or several kinds beside each other.
    static func table(_ kinds: [FreezeSteps]) -> [String] {
        if kinds.count == 1 { return spread(kinds[0]) }
        var table = TextTable(
            [.init("the freeze, µs, medians"), .init("side")]
                + kinds.map { TextTable.Column($0.title, .right) })
        // In the order of the kind that has the most steps; what only others have comes where it begins there.
        var order: [Step] = []
        for kind in kinds.sorted(by: { $0.steps.count > $1.steps.count }) {
            for (index, step) in kind.steps.enumerated() where !order.contains(where: { same($0, step) }) {
                let before = kind.steps[..<index].last { earlier in order.contains { same($0, earlier) } }
                let place = before.flatMap { earlier in order.firstIndex { same($0, earlier) } }.map { $0 + 1 } ?? 0
                order.insert(step, at: place)
            }
        }
        for step in order {
            table.add(
                [step.name, step.side]
                    + kinds.map { kind in
                        kind.steps.first { same($0, step) }.map { grouped($0.median) } ?? "–"
                    })
        }
        table.add(["in no step of the source", ""] + kinds.map { grouped($0.uncovered) })
        table.add(["engine downtime", ""] + kinds.map { grouped($0.downtime) })
        return table.lines()
    }

    private static func same(_ a: Step, _ b: Step) -> Bool { a.name == b.name && a.side == b.side }

    private static func spread(_ kind: FreezeSteps) -> [String] {
        var table = TextTable([
            .init("the freeze, µs: \(kind.title)"), .init("side"), .init("begins at", .right),
            .init("median", .right), .init("min", .right), .init("max", .right),
        ])
        for step in kind.steps {
            table.add([
                step.name, step.side, grouped(step.start), grouped(step.median), grouped(step.min), grouped(step.max),
            ])
        }
        table.add(["in no step of the source", "", "", grouped(kind.uncovered), "", ""])
        table.add(["engine downtime", "", "", grouped(kind.downtime), "", ""])
        return table.lines()
    }
}

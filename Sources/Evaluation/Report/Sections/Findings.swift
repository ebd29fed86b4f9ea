// The report's first sections: where MiGrror is worse and where it is better; what the machine cannot say.
import GRDB
import Testbed

extension EvaluationReport {
    /// What techniques are compared by: columns of `run`, times their factor.
    static let compared: [(column: String, factor: Double, name: String, unit: String)] = [
        ("engine_downtime_ms", 1, "engine downtime", "ms"), ("client_downtime_ms", 1, "client downtime", "ms"),
        ("migration_time_ms", 1, "migration time", "ms"), ("handover_ms", 1, "time from trigger to release", "ms"),
        ("disturbance_ms", 1, "largest gap while copying", "ms"), ("bytes_sent", 1 / 1_048_576.0, "traffic", "MiB"),
    ]

    /// Every difference that is shown and matters, by every metric.
    func findings(_ places: Places) throws -> ReportSection {
        var (worse, better): ([(ratio: Double, row: [String])], [(ratio: Double, row: [String])]) = ([], [])
        var (open, few, small) = (0, 0, 0)
        let pairs = places.pairs(.migrror, .preCopy)
        for metric in Self.compared {
            let contrast = Contrast(places, of: pairs, isTime: metric.unit == "ms") { side in
                side.blocks(metric.column).map { $0.map { $0 * metric.factor } }
            }
            for row in contrast.rows where row.comparison.sign == 0 || !row.comparison.isRelevant {
                if row.comparison.sign != 0 {
                    small += 1
                } else if row.comparison.isJudged {
                    open += 1
                } else {
                    few += 1
                }
            }
            worse += contrast.worse.map { ($0.comparison.ratio, Self.words($0, metric)) }
            better += contrast.better.map { ($0.comparison.ratio, Self.words($0, metric)) }
        }
        let losses = worse.sorted { $0.ratio > $1.ratio }.map(\.row)
        let wins = better.sorted { $0.ratio < $1.ratio }.map(\.row)
        return ReportSection(
            title: "Every difference that is shown",
            blocks: [
                .text(
                    "MiGrror against pre-copy, both on the same engine, links and workloads, under the same handover policy. A "
                        + "difference is named when the 95 % bootstrap interval of the difference of the medians leaves out 0, blocks "
                        + "drawn before runs, and it is above \(plain(Comparison.margin.milliseconds)) ms and a tenth. δ is Cliff's, p "
                        + "the Mann-Whitney test's, two-sided, by Holm within a metric. \(open) comparisons show no difference, "
                        + "\(small) one that is too small to matter, \(few) have fewer than \(Comparison.leastValues) runs on a side, "
                        + "too few to show any. Greatest ratios first."),
                .fold(
                    "Where MiGrror is worse: \(losses.count)",
                    [.table(Self.comparison("Where MiGrror is worse", losses))]),
                .fold(
                    "Where MiGrror is better: \(wins.count)", [.table(Self.comparison("Where MiGrror is better", wins))]
                ),
                .fold("Migrations under 10 ms, and the longest", [.table(try overview())]),
            ])
    }

    private static func words(
        _ row: Contrast.Row, _ metric: (column: String, factor: Double, name: String, unit: String)
    )
        -> [String]
    {
        let comparison = row.comparison
        return [
            metric.name, row.name, row.pair.first.parameters.handover.rawValue,
            "\(measured(comparison.medians.first)) \(metric.unit)",
            "\(measured(comparison.medians.second)) \(metric.unit)", comparison.text, measured(row.test.delta),
            probability(row.p), "\(row.pair.first.rows.count)",
        ]
    }

    private static func probability(_ p: Double) -> String { p < 0.001 ? "< 0.001" : "\((p * 1000).rounded() / 1000)" }

    private static func comparison(_ title: String, _ rows: [[String]]) -> ReportTable {
        ReportTable(
            columns: [
                .init(title, false), .init("at", false), .init("handover", false), .init("MiGrror"), .init("pre-copy"),
                .init("difference [95 %]"), .init("δ"), .init("p"), .init("runs"),
            ], rows: rows.isEmpty ? [["nowhere that these runs show", "", "", "", "", "", "", "", ""]] : rows,
            note: "A point is named by its workload and what is not as at most points of the plan.", query: Places.query
        )
    }

    private func overview() throws -> ReportTable {
        let query = """
            SELECT p.technique, p.workload, p.handover, count(*) AS runs,
                sum(coalesce(r.client_downtime_ms, r.workload_downtime_ms, r.engine_downtime_ms) < 10) AS under,
                max(coalesce(r.client_downtime_ms, r.workload_downtime_ms, r.engine_downtime_ms)) AS worst
            FROM run r JOIN point p ON p.id = r.point WHERE r.passed = 1 AND r.engine_downtime_ms IS NOT NULL
            GROUP BY p.technique, p.workload, p.handover ORDER BY p.workload, p.handover, p.technique
            """
        return ReportTable(
            columns: [
                .init("workload", false), .init("handover", false), .init("technique", false), .init("runs"),
                .init("under 10 ms"), .init("worst (ms)"),
            ],
            rows: try results.rows(query).map { row in
                [
                    row["workload"], row["handover"], row["technique"], "\(row["runs"] as Int)",
                    "\(row["under"] as Int)",
                    measured(row["worst"]),
                ]
            },
            note:
                "Downtime as the client saw it; as the workload saw it, where it has no client. All points of the plan "
                + "together, those at which nothing can be under 10 ms too.", query: query)
    }

    private static let limitsOfMachines =
        "The edge hosts are machines of their own, named under “Where the figures come from”, and so is the one with the clients. Their "
        + "links were left as they are: a bandwidth in these tables is what the plan says of the line, not what Apus made of it, "
        + "and other traffic on it is not known. Downtimes contain what is left of the difference between the machines' clocks, "
        + "which is measured over the connections to their agents: some tenths of a millisecond. What a service says of its own "
        + "downtime by the time of day contains the whole difference."

    func limits() throws -> ReportSection {
        if try results.rows("SELECT processor FROM session").contains(where: { Machine.hasOthers($0["processor"]) }) {
            return ReportSection(title: "What these machines cannot say", blocks: [.text(Self.limitsOfMachines)])
        }
        let processors = try results.rows("SELECT DISTINCT processors FROM session").map { $0["processors"] as Int }
        let counts = processors.sorted().map { "\($0)" }.joined(separator: " or ")
        return ReportSection(
            title: "What this machine cannot say",
            blocks: [
                .text(
                    "Both edge hosts, the containers, their clients and the links share one machine and its \(counts) processors: "
                        + "the engine's work at the source, at the destination, and the client compete, so downtime and slowdown "
                        + "are upper bounds for hosts of their own, most of all where a workload keeps a processor busy. What a "
                        + "technique costs on a host with processors to spare cannot be told. One clock serves all, so no "
                        + "error of clocks is in the figures. Links are veth pairs shaped by htb, or emulated in user space where "
                        + "they have a delay or losses: rates and delays are kept, a real network's queues, interrupts "
                        + "and cross traffic are absent. Virtual processors are taken away at times by others: single "
                        + "outliers are kept, medians reported.")
            ])
    }
}

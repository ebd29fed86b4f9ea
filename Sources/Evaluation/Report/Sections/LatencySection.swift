// The report's section on requests: how long they took, and which were too late.
import GRDB
import Testbed

extension EvaluationReport {
    func requests(_ places: Places) throws -> ReportSection {
        var blocks: [ReportBlock] = try latencies(places).map { .figure($0) }
        if let figure = try deadlineFigure() { blocks.append(.figure(figure)) }
        let tables = try [deadlines(), slowdown()].compactMap { $0 }
        if !tables.isEmpty { blocks.append(.fold("The figures", tables.map { .table($0) })) }
        return ReportSection(title: "Requests", blocks: blocks)
    }

    /// Of each workload with a client, where most techniques were measured: latency while it was migrated by each
    /// technique, and before.
    private func latencies(_ places: Places) throws -> [ReportFigure] {
        let pairs = places.pairs(.migrror, .preCopy).filter { !$0.first.values("during_p99").isEmpty }
        return try pairs.map(\.first.parameters.workload).uniqued.map { workload in
            let mine = pairs.filter { $0.first.parameters.workload == workload }
            let pair = mine.max {
                ($0.control == nil ? 0 : 1, $0.first.rows.count) < ($1.control == nil ? 0 : 1, $1.first.rows.count)
            }!
            let keys = [pair.first, pair.second, pair.control].compactMap { $0?.parameters.key }
            let query = """
                SELECT CASE b.stretch WHEN 'before' THEN 'before' ELSE p.technique END AS series,
                    b.latency_ms AS latency, sum(b.count) AS n
                FROM latency_bucket b JOIN run r ON r.id = b.run JOIN point p ON p.id = r.point
                WHERE r.passed = 1 AND b.stretch IN ('before', 'during')
                    AND p.key IN (\(keys.map { "'\($0)'" }.joined(separator: ", ")))
                GROUP BY 1, 2 ORDER BY 1, 2
                """
            let rows = try results.rows(query)
            let names = rows.map { $0["series"] as String }.uniqued.sorted {
                ($0 == "before" ? 1 : 0) < ($1 == "before" ? 1 : 0)
            }
            var plot = Plot(
                x: Axis("latency (ms)", .log), y: Axis("share of the requests that took longer", .log),
                series: names.enumerated().map { index, name in
                    let buckets = rows.filter { ($0["series"] as String) == name }
                        .map { (latency: $0["latency"] as Double, count: Double($0["n"] as Int)) }
                    let total = buckets.reduce(0) { $0 + $1.count }
                    var left = total
                    let points = buckets.compactMap { bucket -> PlotPoint? in
                        left -= bucket.count
                        return left > 0.5 ? PlotPoint(max(0.01, bucket.latency), left / total) : nil
                    }
                    return PlotSeries(
                        name: "\(name) (\(grouped(total)))", style: .steps,
                        look: name == "before" ? Look.palette[6] : Look.of(name, index), points: points)
                })
            plot.height = 320
            return ReportFigure(
                id: "latency-\(workload.rawValue)",
                title: "Request latency, \(workload.rawValue): \(places.name(pair))",
                reading:
                    "Requests from the decision to the release at this place, by technique (number of requests); and all "
                    + "requests before. A curve tells which share took longer, so its right end is the slowest one.",
                svg: plot.svg(title: "latency, \(workload.rawValue)"), query: query)
        }
    }

    // ---- Deadlines -----------------------------------------------------------------------------------------

    private static let missed = """
        SELECT p.workload, p.handover, p.technique, r.id, sum(l.requests) AS requests, sum(l.late) AS late,
            sum(l.unanswered) AS unanswered, sum(l.duplicated) AS duplicated
        FROM latency l JOIN run r ON r.id = l.run JOIN point p ON p.id = r.point
        WHERE r.passed = 1 AND l.late IS NOT NULL AND l.stretch = 'during' GROUP BY r.id
        ORDER BY p.workload, p.handover, p.technique
        """

    private func deadlineFigure() throws -> ReportFigure? {
        let rows = try results.rows(Self.missed)
        guard !rows.isEmpty else { return nil }
        let groups = rows.map { "\($0["workload"] as String), \($0["handover"] as String)" }.uniqued
        let plot = Plot(
            x: Axis("workload and handover", .names(groups)), y: Axis("deadlines missed in a migration", from: 0),
            series: rows.map { $0["technique"] as String }.uniqued.enumerated().map { index, technique in
                PlotSeries(
                    name: technique, look: Look.of(technique, index),
                    points: groups.enumerated().compactMap { place, group in
                        let values = rows.filter {
                            "\($0["workload"] as String), \($0["handover"] as String)" == group
                                && ($0["technique"] as String) == technique
                        }.map { Double(($0["late"] as Int) + ($0["unanswered"] as Int)) }
                        guard !values.isEmpty else { return nil }
                        let interval = Bootstrap(resamples: 2000).median(of: values)
                        return PlotPoint(Double(place), Sample(values).median, interval?.lower, interval?.upper)
                    })
            })
        return ReportFigure(
            id: "deadlines", title: "Missed deadlines by technique",
            reading:
                "Requests that were due while the migration ran, and were answered after the service's deadline or never; "
                + "medians a migration with 95 % bootstrap intervals.",
            svg: plot.svg(title: "missed deadlines"), query: Self.missed)
    }

    private func deadlines() throws -> ReportTable? {
        let rows = try results.rows(Self.missed)
        guard !rows.isEmpty else { return nil }
        func name(_ row: Row) -> [String] { [row["workload"], row["handover"], row["technique"]] }
        return ReportTable(
            columns: [
                .init("workload", false), .init("handover", false), .init("technique", false), .init("migrations"),
                .init("requests"), .init("late"), .init("never answered"), .init("answered twice"),
                .init("missed a migration"), .init("without a miss (%)"),
            ],
            rows: rows.map(name).uniqued.map { kind in
                let mine = rows.filter { name($0) == kind }
                func sum(_ column: String) -> String { grouped(Double(mine.reduce(0) { $0 + ($1[column] as Int) })) }
                let missed = mine.map { Double(($0["late"] as Int) + ($0["unanswered"] as Int)) }
                return kind + [
                    "\(mine.count)", sum("requests"), sum("late"), sum("unanswered"), sum("duplicated"),
                    medianText(missed),
                    measured(Double(missed.count { $0 == 0 }) / Double(missed.count) * 100),
                ]
            },
            note: "Of workloads whose service has a deadline, from the decision to the release.", query: Self.missed)
    }

    private func slowdown() throws -> ReportTable? {
        let query = """
            SELECT p.workload, p.technique, l.stretch, count(*) AS runs, sum(l.requests) AS requests,
                sum(l.unanswered) AS unanswered, avg(l.p50_ms) AS p50, avg(l.p95_ms) AS p95, avg(l.p99_ms) AS p99,
                avg(l.p999_ms) AS p999, max(l.slowest_ms) AS slowest
            FROM latency l JOIN run r ON r.id = l.run JOIN point p ON p.id = r.point WHERE r.passed = 1
            GROUP BY 1, 2, 3 ORDER BY 1, 2,
                CASE l.stretch WHEN 'before' THEN 1 WHEN 'copying' THEN 2 WHEN 'during' THEN 3 ELSE 4 END
            """
        let rows = try results.rows(query)
        guard !rows.isEmpty else { return nil }
        return ReportTable(
            columns: [
                .init("workload", false), .init("technique", false), .init("stretch", false), .init("migrations"),
                .init("requests"), .init("unanswered"), .init("p50 (ms)"), .init("p95 (ms)"), .init("p99 (ms)"),
                .init("p99.9 (ms)"), .init("slowest (ms)"),
            ],
            rows: rows.map { row in
                [
                    row["workload"], row["technique"], row["stretch"], grouped(Double(row["runs"] as Int)),
                    grouped(Double(row["requests"] as Int)), grouped(Double(row["unanswered"] as Int)),
                ]
                    + ["p50", "p95", "p99", "p999", "slowest"].map { measured(row[$0]) }
            },
            note:
                "Request latency before, while copying (decision to freeze), during (decision to release) and after the "
                + "migration; percentiles are means over the migrations.", query: query)
    }
}

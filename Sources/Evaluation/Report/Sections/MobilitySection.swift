// The report's section on users who move: what they noticed, apart from downtime, and what happened on the way.
import GRDB
import Testbed

extension EvaluationReport {
    /// Empty where nobody moves.
    func mobility() throws -> ReportSection {
        var blocks: [ReportBlock] = []
        if plan.points.contains(where: { $0.parameters.mobility != nil }) {
            blocks.append(
                .text(
                    "Users drive past access points, each of which has an edge host beside it; each user has a service of its "
                        + "own. Downtime is what a migration costs: freeze to release. The user interruption is the time without "
                        + "answers at a handoff: the device's reconnection, what its protocol adds, and the downtime of the "
                        + "migration that belongs to the handoff, where it does not fall into the same gap. Seconds "
                        + "of a trace in which nothing happens and nothing is under way are left out."))
            blocks += try [figure(Self.interruptions), figure(Self.downtimes)].compactMap { $0.map(ReportBlock.figure) }
            blocks += try [handoffTable(), serviceTable(), eventTable()].map(ReportBlock.table)
        }
        return ReportSection(title: "Users who move", blocks: blocks)
    }

    // ---- Figures -------------------------------------------------------------------------------------------

    private struct Question {
        var id: String
        var title: String
        var axis: String
        var reading: String
        var query: String
    }
    /// Where services stay, no technique is at work.
    private static let technique = "CASE p.mobility WHEN 'none' THEN 'no migration' ELSE p.technique END"
    private static let place = "p.mobility || CASE WHEN p.workload = 'redis' THEN '' ELSE ', ' || p.workload END"

    private static let interruptions = Question(
        id: "mobility-interruption", title: "User interruption by strategy", axis: "user interruption (ms)",
        reading:
            "Median over all handoffs, with its 95 % interval. Without any migration it is what the reconnection alone costs.",
        query: """
            SELECT \(place) AS place, \(technique) AS series, h.interruption_ms AS y
            FROM handoff h JOIN run r ON r.id = h.run JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND h.interruption_ms IS NOT NULL ORDER BY p.workload, p.mobility, series
            """)
    private static let downtimes = Question(
        id: "mobility-downtime", title: "Downtime by strategy", axis: "client downtime (ms)",
        reading:
            "Largest gap between answers that touches the freeze, minus the usual gap: median with its 95 % interval. A freeze "
            + "within the reconnection is hidden by it, and the client's gap is then the reconnection's.",
        query: """
            SELECT \(place) AS place, \(technique) AS series, r.client_downtime_ms AS y
            FROM run r JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND p.mobility IS NOT NULL AND r.client_downtime_ms IS NOT NULL
            ORDER BY p.workload, p.mobility, series
            """)

    private func figure(_ question: Question) throws -> ReportFigure? {
        let rows = try results.rows(question.query)
        guard !rows.isEmpty else { return nil }
        let places = rows.map { $0["place"] as String }.uniqued
        let series = rows.map { $0["series"] as String }.uniqued
        let values = rows.map { $0["y"] as Double }
        let isWide = (values.max() ?? 1) / max(values.min() ?? 1, 0.1) > 30
        var plot = Plot(
            x: Axis("strategy", .names(places)),
            y: Axis(question.axis, isWide ? .log : .linear, from: isWide ? nil : 0),
            series: series.enumerated().map { index, name in
                PlotSeries(
                    name: name, look: Look.of(name, index),
                    points: places.enumerated().compactMap { at, place in
                        let mine = rows.filter { ($0["place"] as String) == place && ($0["series"] as String) == name }
                            .map { $0["y"] as Double }
                        guard !mine.isEmpty else { return nil }
                        let interval = Bootstrap(resamples: 2000).median(of: mine)
                        return PlotPoint(Double(at), Sample(mine).median, interval?.lower, interval?.upper)
                    })
            })
        plot.height = 340
        return ReportFigure(
            id: question.id, title: question.title, reading: question.reading, svg: plot.svg(title: question.title),
            query: question.query)
    }

    // ---- Tables --------------------------------------------------------------------------------------------

    private func handoffTable() throws -> ReportTable {
        let query = """
            SELECT \(Self.place) AS place, \(Self.technique) AS series, count(*) AS handoffs, count(h.migration) AS migrated,
                sum(h.was_local) AS local, sum(h.was_ready) AS ready, count(h.was_ready) AS asked,
                max(h.interruption_ms) AS worst, avg(h.radio_ms) AS radio, max(m.engine_downtime_ms) AS downtime,
                avg(h.released_s - h.at_s) AS follows
            FROM handoff h JOIN run r ON r.id = h.run JOIN point p ON p.id = r.point LEFT JOIN run m ON m.id = h.migration
            WHERE r.passed = 1 GROUP BY p.workload, p.mobility, series ORDER BY p.workload, p.mobility, series
            """
        return ReportTable(
            columns: [
                .init("strategy", false), .init("technique", false), .init("handoffs"), .init("with migration"),
                .init("local at once"), .init("ready in time"), .init("no link (ms)"),
                .init("longest interruption (ms)"), .init("longest downtime (ms)"), .init("service follows after (s)"),
            ],
            rows: try results.rows(query).map { row in
                let asked: Int = row["asked"]
                return [
                    row["place"], row["series"], "\(row["handoffs"] as Int)", "\(row["migrated"] as Int)",
                    "\(row["local"] as Int)", asked == 0 ? "–" : "\(row["ready"] as Int) of \(asked)",
                    number(row["radio"]),
                    number(row["worst"]), number(row["downtime"]), number(row["follows"]),
                ]
            },
            note:
                "Local at once: when the device had joined the new access point, the service ran on the host beside it. Ready in "
                + "time: what was left could be sent within the plan's ready-within before the handoff came; else it "
                + "was handed over as it was. Downtime is the engine's. The service follows: handoff to release.",
            query: query)
    }

    private func serviceTable() throws -> ReportTable {
        let query = """
            SELECT \(Self.place) AS place, \(Self.technique) AS series, count(*) AS services, sum(u.requests) AS requests,
                sum(u.requests - u.answered) AS lost, sum(u.late) AS late, max(u.largest_gap_ms) AS gap
            FROM mobility_user u JOIN run r ON r.id = u.run JOIN point p ON p.id = r.point
            WHERE r.passed = 1 GROUP BY p.workload, p.mobility, series ORDER BY p.workload, p.mobility, series
            """
        return ReportTable(
            columns: [
                .init("strategy", false), .init("technique", false), .init("services"), .init("requests"),
                .init("not answered"), .init("late"), .init("longest gap elsewhere (ms)"),
            ],
            rows: try results.rows(query).map { row in
                [
                    row["place"], row["series"], "\(row["services"] as Int)", "\(row["requests"] as Int)",
                    "\(row["lost"] as Int)", (row["late"] as Int?).map(String.init) ?? "no deadline",
                    number(row["gap"]),
                ]
            },
            note:
                "Over whole runs. A service over UDP loses what is sent while the device has no link; over TCP it comes later.",
            query: query)
    }

    /// Of the first run with a migration that was decided ahead, else of the first one.
    private func eventTable() throws -> ReportTable {
        let query = """
            SELECT e.at_s, e.user, e.event, e.distance_m, e.action, p.mobility, \(Self.technique) AS technique
            FROM mobility_event e JOIN run r ON r.id = e.run JOIN point p ON p.id = r.point
            WHERE e.run = (SELECT h.run FROM handoff h JOIN run r ON r.id = h.run JOIN point p ON p.id = r.point
                WHERE r.passed = 1 ORDER BY p.mobility = 'proactive' DESC, h.run LIMIT 1)
            ORDER BY e.rowid LIMIT 60
            """
        let rows = try results.rows(query)
        let what = rows.first.map { "\($0["mobility"] as String), \($0["technique"] as String)" } ?? ""
        return ReportTable(
            columns: [
                .init("trace (s)"), .init("user", false), .init("event", false), .init("distance (m)"),
                .init("what was done", false),
            ],
            rows: rows.map { row in
                [number(row["at_s"]), row["user"], row["event"], number(row["distance_m"]), row["action"]]
            },
            note:
                "The events of one run (\(what)), the first 60. Distance: to the access point that serves until then.",
            query: query)
    }

    private func number(_ value: Double?) -> String { value.map(measured) ?? "–" }
}

// The report's section on users who move: what they noticed, apart from downtime, and what happened on the way.
import GRDB
import Testbed

extension EvaluationReport {
    /// Empty where nobody moves.
    func mobility() throws -> ReportSection {
        var blocks: [ReportBlock] = []
        if plan.points.contains(where: { $0.parameters.mobility != nil }) {
            blocks.append(.text(try movingGains()))
            let figures = try [Self.misses, Self.distances, Self.interruptions, Self.downtimes].compactMap(figure)
            blocks += figures.map(ReportBlock.figure)
            blocks.append(
                .text(
                    "Users drive past access points, each of which has an edge host beside it; each user has a service of its "
                        + "own. Downtime is what a migration costs: freeze to release. The user interruption is the time without "
                        + "answers at a handoff: the device's reconnection, what its protocol adds, and the downtime of the "
                        + "migration that belongs to the handoff, where it does not fall into the same gap. Seconds "
                        + "of a trace in which nothing happens and nothing is under way are left out."))
            blocks.append(
                .fold("The figures", try [handoffTable(), serviceTable(), eventTable()].map(ReportBlock.table)))
        }
        return ReportSection(title: "Does moving help a user who moves?", blocks: blocks)
    }

    // ---- Figures -------------------------------------------------------------------------------------------

    private struct Question {
        var id: String
        var title: String
        var axis: Axis
        var reading: String
        var query: String
    }
    /// Where services stay, no technique is at work.
    private static let technique = "CASE p.mobility WHEN 'none' THEN 'no migration' ELSE p.technique END"
    private static let place = "p.mobility || CASE WHEN p.workload = 'redis' THEN '' ELSE ', ' || p.workload END"
    /// What is equal where strategies and techniques are compared.
    private static let conditions =
        "printf('%s, %g ms between hosts, reconnection %g ms', p.workload, p.rtt_ms / 2, p.reconnection_ms)"
    private static let order = "ORDER BY p.workload, p.rtt_ms, p.reconnection_ms, p.mobility, series"

    private static let misses = Question(
        id: "mobility-misses", title: "Requests that missed their deadline", axis: Axis("missed (%)"),
        reading:
            "A dot a user's service: the share of its requests that were answered after the service's deadline or never, over "
            + "its whole way; the marker is the median with its 95 % interval. Services that stay are called no migration.",
        query: """
            SELECT \(conditions) AS place, p.mobility AS strategy, \(technique) AS series, r.block,
                100.0 * (u.late + u.requests - u.answered) / u.requests AS y
            FROM mobility_user u JOIN run r ON r.id = u.run JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND u.late IS NOT NULL AND u.requests > 0 \(order)
            """)
    private static let distances = Question(
        id: "mobility-latency", title: "Latency near and far",
        axis: Axis("median latency of a user's requests (ms)", .log),
        reading:
            "A dot a user: the median latency of the requests that were due while the service was on the host beside the "
            + "device's access point (near), or on another one (far).",
        query: """
            SELECT \(conditions) AS place, p.mobility AS strategy, \(technique) || ', ' || l.stretch AS series, r.block,
                l.p50_ms AS y
            FROM mobility_latency l JOIN run r ON r.id = l.run JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND l.stretch <> 'handoff' \(order)
            """)
    private static let interruptions = Question(
        id: "mobility-interruption", title: "User interruption by strategy", axis: Axis("user interruption (ms)", .log),
        reading:
            "A dot a handoff, the marker the median with its 95 % interval. Without any migration it is what the reconnection "
            + "alone costs.",
        query: """
            SELECT \(conditions) AS place, p.mobility AS strategy, \(technique) AS series, r.block, h.interruption_ms AS y
            FROM handoff h JOIN run r ON r.id = h.run JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND h.interruption_ms IS NOT NULL \(order)
            """)
    private static let downtimes = Question(
        id: "mobility-downtime", title: "Downtime by strategy", axis: Axis("client downtime (ms)", .log),
        reading:
            "Largest gap between answers that touches the freeze, minus the usual gap: median with its 95 % interval. A freeze "
            + "within the reconnection is hidden by it, and the client's gap is then the reconnection's.",
        query: """
            SELECT \(conditions) AS place, p.mobility AS strategy, \(technique) AS series, r.block,
                r.client_downtime_ms AS y
            FROM run r JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND p.mobility IS NOT NULL AND r.client_downtime_ms IS NOT NULL \(order)
            """)

    private func figure(_ question: Question) throws -> ReportFigure? {
        let rows = try results.rows(question.query)
        guard !rows.isEmpty else { return nil }
        func name(_ row: Row) -> [String] {
            [row["place"], "\(row["strategy"] as String), \(row["series"] as String)"]
        }
        let lines = rows.map(name).uniqued.map { kind in
            let values = rows.filter { name($0) == kind }.map { $0["y"] as Double }
            let technique = kind[1].split(separator: ",")[1].drop { $0 == " " }
            return RowPlot.Row(
                group: kind[0], name: kind[1].replacing("none, no migration", with: "no migration"),
                look: Look.of(String(technique), 2), median: Sample(values).median,
                interval: Bootstrap(resamples: 2000).median(of: values), values: values,
                note: "\(measured(Sample(values).median)), n \(values.count)")
        }
        let plot = RowPlot(axis: question.axis, rows: lines)
        return ReportFigure(
            id: question.id, title: question.title, reading: question.reading, svg: plot.svg(title: question.title),
            query: question.query)
    }

    /// What moving gains over staying, and whether the technique matters.
    private func movingGains() throws -> String {
        let late = try results.rows(Self.misses.query)
        let (rows, what, unit) =
            late.isEmpty
            ? (try results.rows(Self.interruptions.query), "interruption at a handoff", "ms")
            : (late, "share of requests that missed their deadline", "%")
        var sentences: [String] = []
        for place in rows.map({ $0["place"] as String }).uniqued {
            let mine = rows.filter { ($0["place"] as String) == place }
            func blocks(_ isMeant: (Row) -> Bool) -> [[Double]] {
                var blocks: [[Double]] = []
                for row in mine where isMeant(row) {
                    let block = row["block"] as Int
                    while blocks.count < block { blocks.append([]) }
                    blocks[block - 1].append(row["y"])
                }
                return blocks
            }
            let staying = blocks { ($0["strategy"] as String) == "none" }
            let strategies = mine.map { $0["strategy"] as String }.uniqued.filter { $0 != "none" }
            for strategy in strategies {
                func of(_ technique: String) -> [[Double]] {
                    blocks { ($0["strategy"] as String) == strategy && ($0["series"] as String) == technique }
                }
                let (mirror, rounds) = (of("MiGrror"), of("pre-copy"))
                guard !mirror.joined().isEmpty else { continue }
                var text = "\(place), \(strategy): MiGrror's \(what) is \(medianText(mirror.flatMap(\.self))) \(unit)"
                if !staying.joined().isEmpty {
                    text +=
                        ", staying's \(medianText(staying.flatMap(\.self))) (difference "
                        + "\(Comparison(mirror, staying, isTime: unit == "ms").text))"
                }
                if !rounds.joined().isEmpty {
                    text +=
                        ", pre-copy's \(medianText(rounds.flatMap(\.self))) (difference "
                        + "\(Comparison(mirror, rounds, isTime: unit == "ms").text))"
                }
                sentences.append(text + ".")
            }
        }
        return sentences.joined(separator: " ")
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

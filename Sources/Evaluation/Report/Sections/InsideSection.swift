// The report's section on what happens inside a migration.
import GRDB

extension EvaluationReport {
    func inside(_ places: Places) throws -> ReportSection {
        let figures = try [phases(), steps(places), passes(), age()].compactMap { $0 }
        let timelines = try timelines(places)
        return ReportSection(
            title: "Inside a migration",
            blocks: figures.map { .figure($0) }
                + (timelines.isEmpty ? [] : [.fold("Requests around the freeze", timelines.map { .figure($0) })]))
    }

    private func phases() throws -> ReportFigure? {
        let query = """
            SELECT p.technique, p.workload, p.handover, p.memory_mib, p.bandwidth_mbit, p.lambda, f.name AS part,
                avg(f.duration_ms) AS mean, avg(r.engine_downtime_ms) AS downtime
            FROM phase f JOIN run r ON r.id = f.run JOIN point p ON p.id = r.point WHERE r.passed = 1
            GROUP BY p.id, f.name ORDER BY p.workload, p.handover DESC, p.technique
            """
        let rows = try results.rows(query)
        // Of each workload and policy the place where most techniques were measured.
        func place(_ row: Row) -> String {
            let numbers = ["memory_mib", "bandwidth_mbit", "lambda"].map { (row[$0] as Double?).map(tickText) ?? "–" }
            return
                "\(row["workload"] as String) \(row["handover"] as String), \(numbers[0]) MiB, \(numbers[1]) Mbit/s, λ \(numbers[2])"
        }
        var techniques: [String: Set<String>] = [:]
        for row in rows { techniques[place(row), default: []].insert(row["technique"]) }
        var bars: [(name: String, sizes: [Double])] = []
        for kind in rows.map({ "\($0["workload"] as String) \($0["handover"] as String)" }).uniqued {
            let places = techniques.filter { $0.key.hasPrefix(kind + ",") && $0.value.count > 1 }
            guard let best = places.max(by: { ($0.value.count, $1.key) < ($1.value.count, $0.key) })?.key else {
                continue
            }
            for technique in EvaluatedTechnique.allCases.map(\.name).reversed()
            where techniques[best]!.contains(technique) {
                let mine = rows.filter { place($0) == best && ($0["technique"] as String) == technique }
                func mean(_ part: String) -> Double { mine.first { ($0["part"] as String) == part }?["mean"] ?? 0 }
                let downtime: Double = mine[0]["downtime"]
                // A baseline without a freeze of its own copies in the downtime.
                let copy = mean("freeze") > 0 ? mean("copy") : 0
                bars.append(
                    (
                        "\(technique), \(best)",
                        [mean("negotiate"), mean("stage"), copy, max(0, mean("freeze") - downtime), downtime]
                    ))
            }
        }
        guard !bars.isEmpty else { return nil }
        let chart = StackedBars(
            axis: "mean migration time (ms)", parts: ["negotiate", "stage", "copy", "run-up", "downtime"], bars: bars,
            width: 900)
        return ReportFigure(
            id: "phases", title: "Phases of a migration",
            reading:
                "Means at the place of each workload and policy where most techniques were measured. Run-up: the passes "
                + "back to back before the freeze. The number is the sum.", svg: chart.svg(title: "phases"),
            query: query)
    }

    private func steps(_ places: Places) throws -> ReportFigure? {
        // At one point: a mean over several would be no freeze that ever was.
        guard
            let place = places.all.filter({ $0.parameters.technique == .migrror }).max(by: {
                (places.isPlain($1.parameters) ? 1 : 0, $0.rows.count) > (
                    places.isPlain($0.parameters) ? 1 : 0, $1.rows.count
                )
            })
        else { return nil }
        let query = """
            SELECT s.side || ': ' || s.name AS part, avg(s.duration_us) AS mean
            FROM step s JOIN run r ON r.id = s.run JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND p.key = '\(place.parameters.key)' AND s.name NOT LIKE 'capture:%'
            GROUP BY part ORDER BY mean DESC
            """
        let rows = try results.rows(query).filter { ($0["mean"] as Double) >= 20 }
        guard !rows.isEmpty else { return nil }
        let bars = rows.prefix(24).map { (name: $0["part"] as String, sizes: [$0["mean"] as Double]) }
        let chart = StackedBars(axis: "mean time in the freeze (µs)", parts: ["MiGrror"], bars: Array(bars))
        return ReportFigure(
            id: "steps", title: "Steps of the freeze, \(places.name(place.parameters))",
            reading:
                "Mean duration of each step of 20 µs and more on either side. Steps of the two sides overlap, so they do "
                + "not add up to the downtime; waiting contains what the other side does meanwhile.",
            svg: chart.svg(title: "steps"), query: query)
    }

    /// The first run of each technique at a point that pre-copy and MiGrror share.
    private func examples() throws -> String? {
        let query = """
            SELECT p.workload, p.memory_mib, p.bandwidth_mbit, p.lambda, p.handover FROM run r JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND r.repetition = 1 AND p.technique <> 'cold'
            GROUP BY 1, 2, 3, 4, 5 HAVING count(DISTINCT CASE WHEN p.technique IN ('pre-copy', 'MiGrror') THEN p.technique END) > 1
            ORDER BY p.lambda IS NULL, abs(p.lambda - 0.4), p.memory_mib LIMIT 1
            """
        guard let row = try results.rows(query).first else { return nil }
        func equals(_ column: String) -> String {
            let value: DatabaseValue = row[column]
            if let number = Double.fromDatabaseValue(value) { return "p.\(column) = \(number)" }
            return String.fromDatabaseValue(value).map { "p.\(column) = '\($0)'" } ?? "p.\(column) IS NULL"
        }
        return ["workload", "memory_mib", "bandwidth_mbit", "lambda", "handover"].map(equals).joined(separator: " AND ")
    }

    private func overTime(_ table: String, _ x: String, _ y: String) throws -> Answer? {
        guard let place = try examples() else { return nil }
        let query = """
            SELECT p.technique AS series, t.\(x) AS x, t.\(y) AS y FROM \(table) t JOIN run r ON r.id = t.run
            JOIN point p ON p.id = r.point
            WHERE r.id IN (SELECT min(r.id) FROM run r JOIN point p ON p.id = r.point
                WHERE r.passed = 1 AND r.repetition = 1 AND \(place) GROUP BY p.technique)
            ORDER BY t.rowid
            """
        let groups = try results.rows(query).map { row in
            Group(series: row["series"], x: row["x"], xText: "", values: [row["y"]])
        }
        return groups.isEmpty ? nil : Answer(query: query, groups: groups)
    }

    private func curve(_ answer: Answer, _ x: String, _ y: Axis, style: PlotSeries.Style) -> Plot {
        Plot(
            x: Axis(x, from: 0), y: y,
            series: answer.series.enumerated().map { index, name in
                PlotSeries(
                    name: name, style: style, look: Look.of(name, index),
                    points: answer.groups.filter { $0.series == name }.map { PlotPoint($0.x!, $0.values[0]) })
            })
    }

    private func passes() throws -> ReportFigure? {
        guard var answer = try overTime("pass", "start_ms", "pages") else { return nil }
        answer.groups.removeAll { $0.values[0] <= 0 }
        let plot = curve(answer, "after the decision (ms)", Axis("pages of a round or sync", .log), style: .line)
        return ReportFigure(
            id: "passes", title: "Pages of each round or sync",
            reading:
                "One run of each technique at the same point. The first pass sends everything; the last one is sent in "
                + "the freeze; passes without a page are not shown.", svg: plot.svg(title: "passes"),
            query: answer.query)
    }

    private func age() throws -> ReportFigure? {
        guard let answer = try overTime("mirror_age", "at_ms", "age_ms") else { return nil }
        let plot = curve(answer, "after the decision (ms)", Axis("age of the mirror (ms)", from: 0), style: .steps)
        return ReportFigure(
            id: "mirror-age", title: "Age of the mirror",
            reading: "MiGrror: time since the oldest change that is not at the destination yet.",
            svg: plot.svg(title: "age of the mirror"), query: answer.query)
    }

    private func timelines(_ places: Places) throws -> [ReportFigure] {
        let query = """
            SELECT p.key, t.at_ms, t.latency_ms, r.engine_downtime_ms FROM timeline t
            JOIN run r ON r.id = t.run JOIN point p ON p.id = r.point
            WHERE r.id IN (SELECT min(r.id) FROM run r JOIN point p ON p.id = r.point JOIN timeline t ON t.run = r.id
                WHERE r.passed = 1 AND r.engine_downtime_ms IS NOT NULL GROUP BY p.technique, p.workload)
            """
        let rows = try results.rows(query)
        return places.all.compactMap { place -> ReportFigure? in
            let mine = rows.filter { ($0["key"] as String) == place.parameters.key }
            guard let first = mine.first else { return nil }
            let name = "\(place.technique), \(places.name(place.parameters))"
            let downtime: Double = first["engine_downtime_ms"]
            // What lies far from a short freeze says nothing about it.
            let reach = max(100, downtime * 1.6)
            let points = mine.map { PlotPoint($0["at_ms"], max(0.02, $0["latency_ms"])) }
                .filter { $0.x > -reach * 0.6 && $0.x < reach }
            var plot = Plot(
                x: Axis("request due after the freeze began (ms)"), y: Axis("latency (ms)", .log),
                series: [PlotSeries(name: name, style: .dots, look: Look.of(place.technique, 0), points: points)])
            plot.shades = [(0, downtime)]
            plot.height = 260
            return ReportFigure(
                id: "timeline-\(place.technique)-\(place.parameters.workload.rawValue)",
                title: "Requests around the freeze, \(name)",
                reading:
                    "One run: each dot is a request, the shaded stretch is the freeze (\(measured(downtime)) ms). A request "
                    + "is counted from the instant at which it was due, whether the server ran or not.",
                svg: plot.svg(title: name), query: query)
        }
    }
}

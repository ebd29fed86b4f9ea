// The report's sections on what happens inside a migration, on models, and on where the figures come from.
import FoundationEssentials
import GRDB
import Migration
import Testbed

extension EvaluationReport {
    // ---- Inside --------------------------------------------------------------------------------------------

    func inside() throws -> ReportSection {
        var blocks: [ReportBlock] = []
        if let figure = try phases() { blocks.append(.figure(figure)) }
        if let figure = try steps() { blocks.append(.figure(figure)) }
        if let figure = try passes() { blocks.append(.figure(figure)) }
        if let figure = try age() { blocks.append(.figure(figure)) }
        blocks += try timelines().map { .figure($0) }
        if let figure = try latencies() { blocks.append(.figure(figure)) }
        if let table = try slowdown() { blocks.append(.table(table)) }
        return ReportSection(title: "Inside a migration", blocks: blocks)
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
            for technique in ["MiGrror", "pre-copy", "cold"] where techniques[best]!.contains(technique) {
                let mine = rows.filter { place($0) == best && ($0["technique"] as String) == technique }
                func mean(_ part: String) -> Double { mine.first { ($0["part"] as String) == part }?["mean"] ?? 0 }
                let downtime: Double = mine[0]["downtime"]
                bars.append(
                    (
                        "\(technique), \(best)",
                        ["negotiate", "stage", "copy"].map(mean) + [max(0, mean("freeze") - downtime), downtime]
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

    private func steps() throws -> ReportFigure? {
        let query = """
            SELECT p.technique || ', ' || p.workload AS bar, s.side || ': ' || s.name AS part, avg(s.duration_us) AS mean
            FROM step s JOIN run r ON r.id = s.run JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND p.technique = 'MiGrror' AND s.name NOT LIKE 'capture:%'
            GROUP BY bar, part ORDER BY mean DESC
            """
        let rows = try results.rows(query).filter { ($0["mean"] as Double) >= 20 }
        guard !rows.isEmpty else { return nil }
        let bars = rows.prefix(24).map { row in
            (
                name: "\(row["part"] as String) (\((row["bar"] as String).split(separator: " ").last ?? ""))",
                sizes: [row["mean"] as Double]
            )
        }
        let chart = StackedBars(axis: "mean time in the freeze (µs)", parts: ["MiGrror"], bars: Array(bars))
        return ReportFigure(
            id: "steps", title: "Steps of the freeze",
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
            GROUP BY 1, 2, 3, 4, 5 HAVING count(DISTINCT p.technique) > 1
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
        guard let answer = try overTime("pass", "start_ms", "pages") else { return nil }
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

    private func timelines() throws -> [ReportFigure] {
        let query = """
            SELECT p.technique, p.workload, t.at_ms, t.latency_ms, r.engine_downtime_ms FROM timeline t
            JOIN run r ON r.id = t.run JOIN point p ON p.id = r.point
            WHERE r.id IN (SELECT min(r.id) FROM run r JOIN point p ON p.id = r.point JOIN timeline t ON t.run = r.id
                WHERE r.passed = 1 GROUP BY p.technique, p.workload)
            """
        let rows = try results.rows(query)
        let names = rows.map { "\($0["technique"] as String) \($0["workload"] as String)" }.uniqued
        return names.map { name in
            let mine = rows.filter { "\($0["technique"] as String) \($0["workload"] as String)" == name }
            let downtime: Double = mine[0]["engine_downtime_ms"]
            // What lies far from a short freeze says nothing about it.
            let reach = max(100, downtime * 1.6)
            let points = mine.map { PlotPoint($0["at_ms"], max(0.02, $0["latency_ms"])) }
                .filter { $0.x > -reach * 0.6 && $0.x < reach }
            let technique = String(name.split(separator: " ")[0])
            var plot = Plot(
                x: Axis("request due after the freeze began (ms)"), y: Axis("latency (ms)", .log),
                series: [PlotSeries(name: name, style: .dots, look: Look.of(technique, 0), points: points)])
            plot.shades = [(0, downtime)]
            plot.height = 260
            return ReportFigure(
                id: "timeline-\(name.replacing(" ", with: "-"))", title: "Requests around the freeze, \(name)",
                reading:
                    "One run: each dot is a request, the shaded stretch is the freeze (\(measured(downtime)) ms). A request "
                    + "is counted from the instant at which it was due, whether the server ran or not.",
                svg: plot.svg(title: name), query: query)
        }
    }

    private func latencies() throws -> ReportFigure? {
        let query = """
            SELECT p.technique || ', ' || p.workload AS series, t.latency_ms FROM timeline t
            JOIN run r ON r.id = t.run JOIN point p ON p.id = r.point WHERE r.passed = 1 ORDER BY p.workload, p.technique
            """
        let rows = try results.rows(query)
        guard !rows.isEmpty else { return nil }
        let names = rows.map { $0["series"] as String }.uniqued
        let plot = Plot(
            x: Axis("latency (ms)", .log), y: Axis("share of the requests", from: 0, to: 1),
            series: names.enumerated().map { index, name in
                let values = rows.filter { ($0["series"] as String) == name }.map {
                    max(0.01, $0["latency_ms"] as Double)
                }
                return PlotSeries(
                    name: name, style: .steps,
                    look: Look.of(name.split(separator: ",").first.map(String.init) ?? "", index),
                    points: Distribution(values).points.map { PlotPoint($0.value, $0.fraction) })
            })
        return ReportFigure(
            id: "latency-cdf", title: "Distribution of request latency around the freeze",
            reading: "All requests from 1 s before the freeze began to 1 s after, of the first run of each point.",
            svg: plot.svg(title: "latency"), query: query)
    }

    private func slowdown() throws -> ReportTable? {
        let query = """
            SELECT p.workload, p.technique, l.stretch, count(*) AS runs, sum(l.requests) AS requests,
                sum(l.unanswered) AS unanswered, avg(l.p50_ms) AS p50, avg(l.p95_ms) AS p95, avg(l.p99_ms) AS p99,
                avg(l.p999_ms) AS p999, max(l.slowest_ms) AS slowest
            FROM latency l JOIN run r ON r.id = l.run JOIN point p ON p.id = r.point WHERE r.passed = 1
            GROUP BY 1, 2, 3 ORDER BY 1, 2, CASE l.stretch WHEN 'before' THEN 1 WHEN 'during' THEN 2 ELSE 3 END
            """
        let rows = try results.rows(query)
        guard !rows.isEmpty else { return nil }
        return ReportTable(
            columns: [
                .init("workload", false), .init("technique", false), .init("stretch", false), .init("runs"),
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
                "Request latency before, during (decision to release) and after the migration; percentiles are means over "
                + "the runs.", query: query)
    }

    // ---- Models --------------------------------------------------------------------------------------------

    func modelSection() throws -> ReportSection {
        let query = """
            SELECT p.technique, p.memory_mib, p.bandwidth_mbit, p.dirty_mib_s, p.working_set_percent,
                r.engine_downtime_ms, r.migration_time_ms FROM run r JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND p.workload = 'dirtier' AND p.handover = 'when-ready' AND p.share_percent = 100
            """
        var (points, errors):
            ([String: [String: (predicted: Prediction, downtimes: [Double], times: [Double])]], [[String]]) = ([:], [])
        for row in try results.rows(query) {
            let technique: String = row["technique"]
            let (size, link): (Double, Double?) = (row["memory_mib"], row["bandwidth_mbit"])
            let (rate, set): (Double, Double) = (row["dirty_mib_s"], row["working_set_percent"])
            var scenario = MigrationScenario(
                size: size * 1_048_576, dirtyRate: rate * 1_048_576, workingSet: size * 1_048_576 * set / 100,
                bandwidth: link.map { $0 * 1e6 / 8 } ?? .infinity, roundTrip: 0.1)
            scenario.downtimeLimit = 5
            guard let prediction = Predictor(scenario, engine: .plain).all.first(where: { $0.name == technique }) else {
                continue
            }
            let key = "\(size) \(link ?? 0) \(rate) \(set)"
            points[technique, default: [:]][key, default: (prediction, [], [])].downtimes.append(
                row["engine_downtime_ms"])
            points[technique]![key]!.times.append(row["migration_time_ms"])
        }
        guard !points.isEmpty else { return ReportSection(title: "Model against measurement", blocks: []) }
        func figure(
            _ id: String, _ what: String, _ predicted: (Prediction) -> Double,
            _ values: ((predicted: Prediction, downtimes: [Double], times: [Double])) -> [Double]
        ) -> ReportFigure {
            var all: [Double] = []
            var series = points.keys.sorted().enumerated().map { index, technique in
                let places = points[technique]!.values.map { value -> PlotPoint in
                    let interval = Bootstrap(resamples: 1000).median(of: values(value))
                    return PlotPoint(
                        predicted(value.predicted), Sample(values(value)).median, interval?.lower, interval?.upper)
                }.sorted { $0.x < $1.x }
                all += places.flatMap { [$0.x, $0.y] }
                let relative = Sample(places.map { abs($0.x / $0.y - 1) * 100 })
                errors.append([technique, what, "\(places.count)", measured(relative.median), measured(relative.max)])
                return PlotSeries(name: technique, style: .dots, look: Look.of(technique, index), points: places)
            }
            let (least, most) = (all.min() ?? 1, all.max() ?? 1)
            series.append(
                PlotSeries(
                    name: "model = measurement", style: .model, look: Look.palette[7],
                    points: [PlotPoint(least, least), PlotPoint(most, most)]))
            let plot = Plot(
                x: Axis("\(what) by the model (ms)", .log), y: Axis("\(what) measured (ms)", .log), series: series)
            return ReportFigure(
                id: id, title: "Model against measurement: \(what)",
                reading:
                    "A marker for each point of the plan, median over its runs; on the dotted line the model is exact.",
                svg: plot.svg(title: what), query: query)
        }
        let figures = [
            figure("model-downtime", "downtime", { $0.downtime }, { $0.downtimes }),
            figure("model-time", "migration time", { $0.migrationTime }, { $0.times }),
        ]
        let fits = try fitted()
        return ReportSection(
            title: "Model against measurement",
            blocks: [
                .text(
                    "Cold as M/b, pre-copy by Liu et al. 2011, MiGrror as an event queue (our derivation, since the authors' "
                        + "equations are not public). The engine's constants are those of `apus predict`, measured before and "
                        + "elsewhere: nothing was fitted to these runs.")
            ] + figures.map { .figure($0) } + [
                .table(
                    ReportTable(
                        columns: [
                            .init("technique", false), .init("of", false), .init("points"), .init("median error (%)"),
                            .init("greatest (%)"),
                        ], rows: errors, note: "|model / measured median - 1|.", query: query))
            ] + (fits.rows.isEmpty ? [] : [.table(fits)]))
    }

    /// The engine's constants as these runs have them: a line over the state's size, at little load.
    private func fitted() throws -> ReportTable {
        let query = """
            SELECT p.technique, p.bandwidth_mbit, p.memory_mib, r.engine_downtime_ms FROM run r JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND p.workload = 'dirtier' AND p.handover = 'when-ready' AND p.lambda <= 0.1
                AND p.bandwidth_mbit IS NOT NULL
            """
        let rows = try results.rows(query)
        let kinds = rows.map { "\($0["technique"] as String) \($0["bandwidth_mbit"] as Double)" }.uniqued.sorted()
        let lines = kinds.compactMap { kind -> [String]? in
            let mine = rows.filter { "\($0["technique"] as String) \($0["bandwidth_mbit"] as Double)" == kind }
            let points = mine.map {
                (size: ($0["memory_mib"] as Double) * 1_048_576, downtime: $0["engine_downtime_ms"] as Double)
            }
            guard Set(points.map(\.size)).count > 2, let fit = ParameterFit(points) else { return nil }
            let technique: String = mine[0]["technique"]
            return [
                technique, tickText(mine[0]["bandwidth_mbit"]), "\(points.count)", measured(fit.fixed),
                measured(fit.perGiB),
                technique == "cold" ? (fit.bandwidth.map { measured($0 * 8 / 1e6) } ?? "–") : "–",
                measured(fit.line.determination), fit.line.medianRelativeError.map { measured($0 * 100) } ?? "–",
            ]
        }
        return ReportTable(
            columns: [
                .init("technique", false), .init("link (Mbit/s)"), .init("runs"), .init("fixed (ms)"),
                .init("per GiB (ms)"),
                .init("goodput (Mbit/s)"), .init("R²"), .init("median error (%)"),
            ], rows: lines,
            note: "Downtime = fixed + growth × size, least squares over the runs with λ of at most 0.1.", query: query)
    }

    func published() -> ReportSection {
        let (size, bandwidth) = (134_217_728.0, 125e6)
        return ReportSection(
            title: "The published simulation beside it",
            blocks: [
                .text(
                    "MiGrror's authors published a simulator whose downtimes are constants, never measured: they do not depend on "
                        + "size, bandwidth, load or dirty rate in MiGrror's case. Here for 128 MiB at 1 Gbit/s and a radio handoff "
                        + "of 0 ms, without jitter. Nothing in this report is calibrated to them."),
                .table(
                    ReportTable(
                        columns: [
                            .init("technique (published simulation)", false), .init("migration time (ms)"),
                            .init("downtime (ms)"), .init("traffic × size"),
                        ],
                        rows: PublishedSimulation.techniques.map { technique in
                            [
                                technique.name, measured(technique.migrationTime(size: size, bandwidth: bandwidth)),
                                measured(technique.downtime(size: size, bandwidth: bandwidth, handoff: 0)),
                                measured(technique.traffic.value),
                            ]
                        },
                        note: "MiGrror's downtime there is 5 × (handoff + 100 ms), printed divided by 100.")),
            ])
    }

    // ---- Where it comes from -------------------------------------------------------------------------------

    func provenance() throws -> ReportSection {
        var blocks: [ReportBlock] = []
        let failures = try results.rows(
            "SELECT p.key, r.repetition, r.error FROM run r JOIN point p ON p.id = r.point WHERE r.passed = 0")
        blocks.append(.text(failures.isEmpty ? "No run failed." : "Runs that failed:"))
        if !failures.isEmpty {
            blocks.append(
                .list(
                    failures.map {
                        "\($0["key"] as String) #\($0["repetition"] as Int): \($0["error"] as String? ?? "?")"
                    }))
        }
        let made = try results.store.made()
        let missing = plan.points.compactMap { point, repetitions -> String? in
            let count = (1...repetitions).count { made.contains(PlannedRun(parameters: point, repetition: $0).name) }
            return count < repetitions ? "\(point.key): \(count) of \(repetitions)" : nil
        }
        if !missing.isEmpty {
            blocks += [.text("Planned and not run (runs made of those planned):"), .list(missing)]
        }
        let sessions = try results.rows("SELECT * FROM session ORDER BY id")
        blocks.append(
            .table(
                ReportTable(
                    columns: [
                        .init("started (UTC)", false), .init("kernel", false), .init("processor", false),
                        .init("processors"), .init("memory (GiB)"), .init("runtime", false),
                        .init("load before", false),
                    ],
                    rows: sessions.map { row in
                        [
                            row["started_at"], row["kernel"], row["processor"], "\(row["processors"] as Int)",
                            measured(Double(row["memory"] as Int64) / Double(1 << 30)), row["runtime"], row["load"],
                        ]
                    })))
        blocks += [
            .text(
                "Every run is on a fresh container; its content is verified after it. The order is shuffled by the plan's seed, "
                    + "each repetition over all points. The plan:"), .code(plan.source),
        ]
        return ReportSection(title: "Where the figures come from", blocks: blocks)
    }
}

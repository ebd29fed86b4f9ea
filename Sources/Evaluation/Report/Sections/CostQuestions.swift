// Questions of the report about what MiGrror costs, and how to set it.
import GRDB
import Migration
import Testbed

extension EvaluationReport {
    // ---- Traffic and slowdown ------------------------------------------------------------------------------

    func costs(_ places: Places) -> Answered {
        let question = "What does MiGrror cost in traffic and slowdown?"
        let pairs = places.pairs(.migrror, .preCopy)
        guard !pairs.isEmpty else {
            return Answered(question: question, answer: Answered.silent + "no place has MiGrror and pre-copy.")
        }
        let latency = CopyingLatency(places)
        let sides = pairs.map { pair in
            (pair: pair, sides: [pair.control, pair.second, pair.first].compactMap { $0 })
        }
        let rows = sides.flatMap { pair, sides in
            sides.map { one in
                [
                    places.name(pair), one.technique, "\(one.rows.count)",
                    medianText(one.values("overhead").map { $0 * 100 }), medianText(one.values("disturbance_ms")),
                    medianText(one.values("before_p99")), medianText(one.values(latency.column)),
                    medianText(latency.slowdowns(one)), medianText(one.values("waited_ms_s")),
                    medianText(one.values("faults_s")),
                    medianText(one.processing),
                ]
            }
        }
        // The worst for the service, those of a trigger first: there mirroring goes on for as long as the wait.
        let shown = sides.filter { !latency.slowdowns($0.pair.first).isEmpty }.prefix(12)
        let plot = RowPlot(
            axis: Axis("p99 latency, \(latency.stretch) ÷ before", .log),
            rows: shown.flatMap { pair, sides in
                sides.map { one in
                    let slowdowns = latency.slowdowns(one)
                    return RowPlot.Row(
                        group: places.name(pair), name: one.technique, look: Look.of(one.technique, 0),
                        median: Sample(slowdowns).median,
                        interval: Bootstrap(resamples: 2000).median(of: slowdowns), values: slowdowns,
                        note: "\(measured(Sample(one.values(latency.column)).median)) ms")
                }
            }, levels: [(1, "undisturbed")])
        let figure = ReportFigure(
            id: "slowdown", title: "What a service pays while it is copied or mirrored",
            reading:
                "A dot a run: the 99th percentile of its client's latencies \(latency.words), over that before. At the end of a "
                + "row the median of the former. At most 12 places.",
            svg: plot.svg(title: "slowdown"), query: Places.query)
        return Answered(
            question: question, answer: Self.costs(pairs.map { ($0, places.name($0)) }, latency),
            figure: shown.isEmpty ? nil : figure,
            table: ReportTable(
                columns: [
                    .init("at", false), .init("technique", false), .init("n"), .init("overhead (% of the state)"),
                    .init("largest gap while copying (ms)"), .init("p99 before (ms)"),
                    .init("p99 \(latency.stretch) (ms)"), .init("\(latency.stretch) ÷ before"),
                    .init("waited for a processor (ms/s)"), .init("faults (1/s)"),
                    .init("agents' CPU time (s)"),
                ], rows: rows,
                note:
                    "Latency of the client's requests before the migration and \(latency.words); "
                    + "waits and page faults of the container's first process, from the decision to the wish to hand over; "
                    + "CPU time of both agents together while they migrate.", query: Places.query))
    }

    private static func costs(_ pairs: [(pair: Places.Pair, name: String)], _ latency: CopyingLatency) -> String {
        func ratios(_ value: (PlaceRuns) -> [Double]) -> [(ratio: Double, name: String, text: String)] {
            pairs.compactMap { pair, name in
                let (a, b) = (value(pair.first), value(pair.second))
                guard !a.isEmpty, !b.isEmpty, Sample(b).median > 0 else { return nil }
                return (Sample(a).median / Sample(b).median, name, "\(medianText(a)) against \(medianText(b))")
            }.sorted { $0.ratio > $1.ratio }
        }
        func sentence(_ what: String, _ unit: String, _ value: (PlaceRuns) -> [Double]) -> String? {
            let all = ratios(value)
            guard let most = all.first else { return nil }
            let middle = measured(Sample(all.map(\.ratio)).median)
            return "\(what): \(middle) times pre-copy's in the median over \(all.count) places, most at \(most.name) "
                + "(\(most.text)\(unit.isEmpty ? "" : " " + unit))."
        }
        return [
            sentence("Bytes sent", "MiB", { $0.values("bytes_sent").map { $0 / 1_048_576 } }),
            sentence("p99 latency \(latency.words), over that before", "", latency.slowdowns),
            sentence("Largest gap while copying", "ms", { $0.values("disturbance_ms") }),
            sentence("Agents' CPU time", "s", \.processing),
        ].compactMap { $0 }.joined(separator: " ")
    }

    // ---- Does it keep up? ----------------------------------------------------------------------------------

    private static let syncs = """
        SELECT p.key, q.pages, count(*) AS n FROM pass q JOIN run r ON r.id = q.run JOIN point p ON p.id = r.point
        WHERE r.passed = 1 AND p.technique = 'MiGrror' AND q.pages > 0 AND q.ordinal > 1 AND r.ready_ms <= q.start_ms
        GROUP BY p.id, q.pages ORDER BY p.id, q.pages
        """
    private static let distances = """
        SELECT key, avg(distance) AS distance FROM (
            SELECT p.key, p.id, q.start_ms - lag(q.start_ms) OVER (PARTITION BY q.run ORDER BY q.ordinal) AS distance
            FROM pass q JOIN run r ON r.id = q.run JOIN point p ON p.id = r.point
            WHERE r.passed = 1 AND p.technique = 'MiGrror' AND q.pages > 0 AND q.ordinal > 1 AND r.ready_ms <= q.start_ms)
        GROUP BY id
        """

    /// How many events a sync has, from the time on when the mirror was in sync.
    func keepingUp(_ places: Places) throws -> Answered {
        let question = "Does MiGrror keep up, a sync for each event?"
        var counts: [String: [(pages: Int, count: Int)]] = [:]
        for row in try results.rows(Self.syncs) { counts[row["key"], default: []].append((row["pages"], row["n"])) }
        let distances = Dictionary(
            try results.rows(Self.distances).map { ($0["key"] as String, $0["distance"] as Double?) }
        ) { first, _ in first }
        let mine = places.all.filter { counts[$0.parameters.key] != nil }
        guard !mine.isEmpty else {
            return Answered(
                question: question, answer: Answered.silent + "no run of MiGrror was in sync before its handover.")
        }
        var (rows, small): ([[String]], [String]) = ([], [])
        for place in mine {
            let run = place.parameters, counts = counts[run.key]!
            let total = counts.reduce(0) { $0 + $1.count }
            func quantile(_ share: Double) -> Int {
                var left = Int((share * Double(total)).rounded(.up))
                return counts.first {
                    left -= $0.count
                    return left <= 0
                }?.pages ?? 0
            }
            let event = run.preset == .published ? 1 : run.eventPages.map { Int($0) } ?? MigrationPlan.usualEventPages
            let single = counts.reduce(0) { $0 + ($1.pages <= event ? $1.count : 0) }
            let share = measured(100 * Double(single) / Double(total))
            if event == 1 {
                small.append(
                    "\(places.name(run)): \(share) % of the syncs were one event, the median has \(quantile(0.5)) pages"
                )
            }
            rows.append([
                places.name(run), "\(event)", grouped(Double(total) / Double(place.rows.count)), "\(quantile(0.5))",
                "\(quantile(0.95))", share, (distances[run.key] ?? nil).map(measured) ?? "–",
            ])
        }
        return Answered(
            question: question,
            answer: small.isEmpty
                ? "No run here had events of one page; with larger ones the table says how many a sync holds."
                : "With events of one page: " + small.joined(separator: "; ")
                    + ". Whatever is more than one event was written while an earlier sync was still on its way.",
            table: ReportTable(
                columns: [
                    .init("at", false), .init("event (pages)"), .init("syncs a migration"),
                    .init("pages a sync, median"),
                    .init("p95"), .init("one event or less (%)"), .init("between two (ms)"),
                ], rows: rows, note: "Syncs with a page at least, from the time on when the mirror was first in sync.",
                query: Self.syncs))
    }

    // ---- Which setting is on the front? --------------------------------------------------------------------

    /// What a setting gives and costs, in medians: less is better of each.
    private struct Setting {
        var place: PlaceRuns
        var costs: [Double]
        func dominates(_ other: Setting) -> Bool {
            zip(costs, other.costs).allSatisfy(<=) && zip(costs, other.costs).contains(where: <)
        }
    }

    func frontier(_ places: Places) -> Answered {
        let question = "Which settings are on the front of downtime, traffic and slowdown?"
        let engines = places.all.filter { place in
            if case .engine(let technique) = place.parameters.technique { technique.copy != .none } else { false }
        }
        func conditions(_ place: PlaceRuns) -> String {
            places.conditions(place.parameters, without: [.preset, .readyWithin, .runUp, .freezeLimit])
        }
        let crowds = engines.map(conditions).uniqued.map { name in engines.filter { conditions($0) == name } }
        guard let crowd = crowds.max(by: { $0.count < $1.count }), crowd.count > 4 else {
            return Answered(
                question: question, answer: Answered.silent + "they need five settings or more under equal conditions.")
        }
        let latency = CopyingLatency(places)
        let settings = crowd.compactMap { place -> Setting? in
            let costs = [
                place.seenDowntimes, place.values("bytes_sent").map { $0 / 1_048_576 },
                place.values(latency.column).isEmpty ? place.values("disturbance_ms") : place.values(latency.column),
            ]
            return costs.contains(where: \.isEmpty)
                ? nil : Setting(place: place, costs: costs.map { Sample($0).median })
        }
        let front = settings.filter { one in !settings.contains { $0.dominates(one) } }
        func isOnFront(_ setting: Setting) -> Bool {
            front.contains { $0.place.parameters == setting.place.parameters }
        }
        let techniques = settings.map(\.place.technique).uniqued
        let plot = Plot(
            x: Axis("traffic (MiB)", .log), y: Axis("downtime (ms)", .log),
            series: techniques.flatMap { technique in
                [true, false].map { onFront in
                    var look = Look.of(technique, 0)
                    look.filled = onFront
                    return PlotSeries(
                        name: technique + (onFront ? ", on the front" : ""), style: .dots, look: look,
                        points: settings.filter { $0.place.technique == technique && isOnFront($0) == onFront }
                            .map { PlotPoint($0.costs[1], $0.costs[0]) })
                }
            }, levels: [(10, "10 ms")])
        func name(_ setting: Setting) -> String { places.name(setting.place.parameters) }
        let words = techniques.map { technique in
            let mine = front.filter { $0.place.technique == technique }
            return "of \(technique) \(mine.count)" + (mine.isEmpty ? "" : ": " + mine.map(name).joined(separator: "; "))
        }
        return Answered(
            question: question,
            answer:
                "Of \(settings.count) settings at one place, \(front.count) are on the front, since none is better or equal in all "
                + "three medians: " + words.joined(separator: ". ") + ".",
            figure: ReportFigure(
                id: "front", title: "Downtime against traffic",
                reading: "A marker a setting, medians; filled: on the front of downtime, traffic and p99 latency "
                    + "\(latency.words).",
                svg: plot.svg(title: "front"), query: Places.query),
            table: ReportTable(
                columns: [
                    .init("setting", false), .init("technique", false), .init("on the front", false), .init("n"),
                    .init("downtime (ms)"), .init("traffic (MiB)"),
                    .init("p99 \(latency.stretch), or largest gap (ms)"),
                    .init("trigger to release (ms)"),
                ],
                rows: settings.sorted { $0.costs[0] < $1.costs[0] }.map { setting in
                    [
                        name(setting), setting.place.technique, isOnFront(setting) ? "yes" : "",
                        "\(setting.place.rows.count)", medianText(setting.place.seenDowntimes),
                        measured(setting.costs[1]), measured(setting.costs[2]),
                        medianText(setting.place.values("handover_ms")),
                    ]
                }, query: Places.query))
    }

    // ---- Event size ----------------------------------------------------------------------------------------

    func eventSize(_ places: Places) -> Answered {
        let question = "Which event size is best?"
        let mine = places.all.filter { $0.parameters.technique == .migrror && $0.parameters.eventPages != nil }
        let lines = places.groups(by: [.eventPages], of: mine).filter { $0.count > 2 }
        guard !lines.isEmpty else {
            return Answered(
                question: question, answer: Answered.silent + "they need MiGrror at three event sizes or more.")
        }
        var (sentences, rows): ([String], [[String]]) = ([], [])
        var curves: [PlotSeries] = []
        for line in lines {
            let line = line.sorted { $0.parameters.eventPages! < $1.parameters.eventPages! }
            let place = places.name(line[0].parameters, without: [.eventPages])
            let metrics: [(name: String, values: (PlaceRuns) -> [Double])] = [
                ("downtime", \.seenDowntimes), ("traffic", { $0.values("bytes_sent") }),
                ("the largest gap while copying", { $0.values("disturbance_ms") }),
            ]
            sentences.append(
                "\(place): " + metrics.compactMap { Self.best($0.name, line, $0.values) }.joined(separator: "; ") + ".")
            curves.append(
                PlotSeries(
                    name: place, look: Look.palette[curves.count % Look.palette.count],
                    points: line.map { one in
                        let interval = Bootstrap(resamples: 2000).median(of: one.seenDowntimes)
                        return PlotPoint(
                            one.parameters.eventPages!, Sample(one.seenDowntimes).median, interval?.lower,
                            interval?.upper)
                    }))
            rows += line.map { one in
                [
                    place, plain(one.parameters.eventPages!), "\(one.rows.count)", medianText(one.seenDowntimes),
                    medianText(one.values("handover_ms")), medianText(one.values("overhead").map { $0 * 100 }),
                    medianText(one.values("passes")), medianText(one.values("disturbance_ms")),
                    medianText(one.processing),
                ]
            }
        }
        let plot = Plot(
            x: Axis(Parameter.eventPages.title, .log), y: Axis("downtime (ms)", from: 0), series: curves)
        return Answered(
            question: question, answer: sentences.joined(separator: " "),
            figure: ReportFigure(
                id: "event-size", title: "Downtime by the size of an event", reading: "Medians with 95 % intervals.",
                svg: plot.svg(title: "downtime by event size"), query: Places.query),
            table: ReportTable(
                columns: [
                    .init("at", false), .init("event (pages)"), .init("n"), .init("downtime (ms)"),
                    .init("trigger to release (ms)"), .init("overhead (%)"), .init("syncs"),
                    .init("largest gap while copying (ms)"), .init("agents' CPU time (s)"),
                ], rows: rows, note: "An event is so many dirty pages; a sync sends what is dirty by then.",
                query: Places.query))
    }

    /// The size with the least median, and those not shown to be worse.
    private static func best(_ what: String, _ line: [PlaceRuns], _ values: (PlaceRuns) -> [Double]) -> String? {
        let line = line.filter { !values($0).isEmpty }
        guard let best = line.min(by: { Sample(values($0)).median < Sample(values($1)).median }) else { return nil }
        let equal = line.filter {
            $0.parameters != best.parameters && Comparison(values($0), values(best)).sign <= 0
        }
        let others = equal.map { plain($0.parameters.eventPages!) }.joined(separator: ", ")
        return "\(what) is least at \(plain(best.parameters.eventPages!)) pages"
            + (equal.count + 1 == line.count
                ? ", but no size is shown to be worse" : equal.isEmpty ? "" : " (not shown to be worse: \(others))")
    }
}

/// The 99th percentile of a client's latencies while its service is copied: from the decision to the freeze. With the
/// freeze where results of an older version have no other.
struct CopyingLatency {
    let column: String
    /// As a heading has it, and as a sentence has it.
    let stretch: String
    let words: String

    init(_ places: Places) {
        (column, stretch, words) =
            places.hasCopyingLatency
            ? ("copying_p99", "while copying", "from the decision to the freeze")
            : (
                "during_p99", "while migrating",
                "from the decision to the release (a freeze of a hundredth of that is itself the 99th percentile)"
            )
    }

    /// Over that before, a run.
    func slowdowns(_ place: PlaceRuns) -> [Double] {
        place.rows.compactMap { row in
            guard let before: Double = row["before_p99"], let copying: Double = row[column], before > 0 else {
                return nil
            }
            return copying / before
        }
    }
}

extension PlaceRuns {
    /// CPU seconds of both agents, a migration.
    var processing: [Double] {
        rows.compactMap { row in
            guard let source: Double = row["source_cpu_s"], let destination: Double = row["destination_cpu_s"] else {
                return nil
            }
            return source + destination
        }
    }
}

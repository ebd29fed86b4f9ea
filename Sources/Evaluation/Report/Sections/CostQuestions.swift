// Questions of the report about what MiGrror costs, and how to set it.
import GRDB
import Testbed

extension EvaluationReport {
    // ---- Traffic and slowdown ------------------------------------------------------------------------------

    /// Of each workload and policy the conditions under which most techniques were measured.
    private func mainPlaces(_ places: Places) -> [[PlaceRuns]] {
        let plain = places.all.filter { places.isPlain($0.parameters) }
        // Of several, the one of the usual parameters.
        func order(_ group: [PlaceRuns]) -> (Int, Int, Int) {
            (group.count, -places.name(group[0].parameters).count, group.map(\.rows.count).min() ?? 0)
        }
        let kinds = plain.map { "\($0.parameters.workload.rawValue) \($0.parameters.handover.rawValue)" }.uniqued
        return kinds.compactMap { kind in
            let mine = plain.filter { "\($0.parameters.workload.rawValue) \($0.parameters.handover.rawValue)" == kind }
            return mine.map { places.conditions($0.parameters) }.uniqued
                .map { name in mine.filter { places.conditions($0.parameters) == name } }
                .max { order($0) < order($1) }
        }.filter { $0.count > 1 }
    }

    func costs(_ places: Places) -> Answered {
        let question = "What does MiGrror cost in traffic and slowdown?"
        let main = mainPlaces(places)
        guard main.contains(where: { $0.contains { $0.parameters.technique == .migrror } }) else {
            return Answered(question: question, answer: Answered.silent + "no point has MiGrror and another technique.")
        }
        var (sentences, rows): ([String], [[String]]) = ([], [])
        for group in main {
            let place =
                "\(places.name(group[0].parameters, without: [.handover])), \(group[0].parameters.handover.rawValue)"
            if let mirror = group.first(where: { $0.parameters.technique == .migrror }),
                let other = group.first(where: { $0.parameters.technique == .preCopy })
            {
                sentences.append(Self.cost(place, mirror, other))
            }
            rows += group.map { one in
                [
                    place, one.technique, "\(one.rows.count)", medianText(one.values("overhead").map { $0 * 100 }),
                    medianText(one.values("disturbance_ms")), medianText(one.values("before_p50")),
                    medianText(one.values("during_p50")), medianText(one.values("before_p99")),
                    medianText(one.values("during_p99")), medianText(one.processing),
                ]
            }
        }
        return Answered(
            question: question, answer: sentences.joined(separator: " "),
            table: ReportTable(
                columns: [
                    .init("at", false), .init("technique", false), .init("n"), .init("overhead (% of the state)"),
                    .init("largest gap while copying (ms)"), .init("p50 before (ms)"), .init("p50 during (ms)"),
                    .init("p99 before (ms)"), .init("p99 during (ms)"), .init("agents' CPU time (s)"),
                ], rows: rows,
                note:
                    "Latency of the client's requests before the migration and from its decision to the release; CPU time of "
                    + "both agents together while they migrate.", query: Places.query))
    }

    private static func cost(_ place: String, _ mirror: PlaceRuns, _ other: PlaceRuns) -> String {
        func compared(_ what: String, _ unit: String, _ a: [Double], _ b: [Double]) -> String? {
            guard !a.isEmpty, !b.isEmpty else { return nil }
            let difference = Comparison(a, b)
            let word =
                difference.sign > 0 ? "more than" : difference.sign < 0 ? "less than" : "not shown to differ from"
            return "\(what) \(medianText(a)) \(unit), \(word) pre-copy's \(medianText(b))"
        }
        let parts = [
            compared(
                "overhead", "%", mirror.values("overhead").map { $0 * 100 }, other.values("overhead").map { $0 * 100 }),
            compared(
                "largest gap while copying", "ms", mirror.values("disturbance_ms"), other.values("disturbance_ms")),
            compared("p99 latency meanwhile", "ms", mirror.values("during_p99"), other.values("during_p99")),
            compared("agents' CPU time", "s", mirror.processing, other.processing),
        ].compactMap { $0 }
        return "\(place): \(parts.joined(separator: "; "))."
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
        for line in lines {
            let line = line.sorted { $0.parameters.eventPages! < $1.parameters.eventPages! }
            let place = places.name(line[0].parameters, without: [.eventPages])
            let metrics: [(name: String, values: (PlaceRuns) -> [Double])] = [
                ("downtime", \.seenDowntimes), ("traffic", { $0.values("bytes_sent") }),
                ("the largest gap while copying", { $0.values("disturbance_ms") }),
            ]
            sentences.append(
                "\(place): " + metrics.compactMap { Self.best($0.name, line, $0.values) }.joined(separator: "; ") + ".")
            rows += line.map { one in
                [
                    place, plain(one.parameters.eventPages!), "\(one.rows.count)", medianText(one.seenDowntimes),
                    medianText(one.values("handover_ms")), medianText(one.values("overhead").map { $0 * 100 }),
                    medianText(one.values("passes")), medianText(one.values("disturbance_ms")),
                    medianText(one.processing),
                ]
            }
        }
        return Answered(
            question: question, answer: sentences.joined(separator: " "),
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

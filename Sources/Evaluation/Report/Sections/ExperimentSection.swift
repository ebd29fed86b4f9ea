// The report's section on an experiment: figures over what was varied, and a table.
import GRDB

extension EvaluationReport {
    func section(_ experiment: EvaluationPlan.Experiment) throws -> ReportSection {
        let parameter = experiment.varied.first
        let downtime = try results.answer(experiment, "r.engine_downtime_ms")
        guard !downtime.isEmpty else {
            return ReportSection(title: experiment.title, blocks: [.text("No run of this experiment has been made.")])
        }
        let title = experiment.title
        var blocks: [ReportBlock] = [.text(experiment.words)]
        if experiment.isMap {
            blocks.append(.figure(try map(experiment)))
        } else {
            func figure(_ id: String, _ column: String, _ what: String, _ unit: String, _ reading: String) throws
                -> ReportBlock?
            {
                let answer = try results.answer(experiment, column)
                guard !answer.isEmpty else { return nil }
                let isDowntime = id.hasSuffix("downtime")
                var plot = answer.plot(
                    x: parameter, y: "\(what) (\(unit))", levels: isDowntime ? [(10, "10 ms")] : [])
                if parameter == .lambda, isDowntime {
                    if answer.groups.contains(where: { ($0.x ?? 0) > 0.9 }) { plot.marks.append((1, "λ = 1")) }
                    if let knee = answer.knee("MiGrror", at: 10, in: plot) {
                        plot.marks.append((knee, "MiGrror above 10 ms from λ = \(measured(knee))"))
                    }
                }
                let name = "\(title): \(what)"
                return .figure(
                    ReportFigure(
                        id: "\(experiment.name)-\(id)", title: name, reading: reading, svg: plot.svg(title: name),
                        query: answer.query))
            }
            let bars = "Medians with 95 % bootstrap intervals."
            let figures = [
                try figure(
                    "client-downtime", "r.client_downtime_ms", "client downtime", "ms",
                    "Largest gap between two answers that touches the freeze, minus the usual gap. " + bars),
                try figure(
                    "downtime", "r.engine_downtime_ms", "engine downtime", "ms", "Freeze begun to release. " + bars),
                experiment.points.contains { $0.handover == .atTrigger }
                    ? try figure(
                        "handover", "r.handover_ms", "trigger to release", "ms",
                        "From the handover's trigger to the destination serving: preparation, the last passes and the "
                            + "downtime. " + bars) : nil,
                try figure(
                    "migration-time", "r.migration_time_ms / 1000", "migration time", "s",
                    "From the decision to the destination serving. " + bars),
                try figure(
                    "overhead", "100 * r.overhead", "traffic overhead", "% of the state",
                    "Bytes sent beyond the size of the state. " + bars),
                try figure(
                    "disturbance", "r.disturbance_ms", "largest gap while copying", "ms",
                    "The longest time without progress before the freeze: what copying costs the program. " + bars),
            ].compactMap { $0 }
            blocks += figures.prefix(1)
            if figures.count > 1 { blocks.append(.fold("Time, traffic, disturbance", Array(figures.dropFirst()))) }
        }
        blocks.append(.fold("The figures", [.table(try table(experiment))]))
        return ReportSection(title: title, blocks: blocks)
    }

    private func table(_ experiment: EvaluationPlan.Experiment) throws -> ReportTable {
        let metrics: [(String, String)] = [
            ("engine (ms)", "r.engine_downtime_ms"), ("workload (ms)", "r.workload_downtime_ms"),
            ("client (ms)", "r.client_downtime_ms"), ("time (s)", "r.migration_time_ms / 1000"),
            ("traffic (MiB)", "r.bytes_sent / 1048576.0"), ("passes", "r.passes"),
        ]
        let answers = try metrics.map { try results.answer(experiment, $0.1) }
        let failures = try results.rows(
            """
            SELECT count(*) AS n FROM run r JOIN experiment_point e ON e.point = r.point
            WHERE e.experiment = '\(experiment.name)' AND r.passed = 0
            """)
        let failed: Int = failures.first?["n"] ?? 0
        return ReportTable(
            columns: [.init("technique", false), .init(experiment.varied.first?.title ?? "", true), .init("n")]
                + metrics.map { .init($0.0) },
            rows: answers[0].groups.map { group in
                [group.series, experiment.varied.isEmpty ? "" : group.xText, "\(group.values.count)"]
                    + answers.map { answer in
                        guard
                            let same = answer.groups.first(where: {
                                $0.series == group.series && $0.xText == group.xText
                            })
                        else { return "–" }
                        let interval = same.interval.map { " [\(measured($0.lower)), \(measured($0.upper))]" } ?? ""
                        return measured(same.sample.median) + interval
                    }
            },
            note: "Medians [95 % bootstrap interval]; downtimes in ms. Failed runs in this experiment: \(failed).",
            query: answers[0].query)
    }

    /// Which technique has the least downtime over two parameters.
    private func map(_ experiment: EvaluationPlan.Experiment) throws -> ReportFigure {
        let (x, y) = (experiment.varied[0], experiment.varied[1])
        let query = """
            SELECT p.\(x.column) AS x, p.\(y.column) AS y, p.technique AS technique, r.engine_downtime_ms AS downtime
            FROM run r JOIN point p ON p.id = r.point JOIN experiment_point e ON e.point = p.id
            WHERE e.experiment = '\(experiment.name)' AND r.passed = 1
            """
        var values: [[String]: [Double]] = [:]
        var (xs, ys): (Set<Double>, Set<Double>) = ([], [])
        for row in try results.rows(query) {
            let (a, b): (Double, Double) = (row["x"] ?? .infinity, row["y"] ?? .infinity)
            xs.insert(a)
            ys.insert(b)
            values[["\(a)", "\(b)", row["technique"]], default: []].append(row["downtime"])
        }
        func name(_ value: Double, _ parameter: Parameter) -> String {
            value.isFinite ? tickText(value) : parameter.absent
        }
        let techniques = experiment.points.map(\.technique.name).uniqued
        let cells = ys.sorted().map { b in
            xs.sorted().map { a -> HeatMap.Cell in
                let found = techniques.compactMap { technique in
                    values[["\(a)", "\(b)", technique]].map { (technique, $0) }
                }.sorted { Sample($0.1).median < Sample($1.1).median }
                guard let best = found.first else { return HeatMap.Cell(text: ["–"]) }
                let isTie = found.count > 1 && Comparison(best.1, found[1].1).sign >= 0
                return HeatMap.Cell(
                    best: best.0, text: found.prefix(3).map { "\($0.0) \(measured(Sample($0.1).median))" }, tie: isTie)
            }
        }
        let chart = HeatMap(
            x: (x.title, xs.sorted().map { name($0, x) }), y: (y.title, ys.sorted().map { name($0, y) }), cells: cells)
        return ReportFigure(
            id: "\(experiment.name)-map", title: "\(experiment.title): least engine downtime",
            reading:
                "Median engine downtime in ms of each technique, the best one first. A square has a technique's colour "
                + "only if the 95 % interval of its difference to the second leaves out 0.",
            svg: chart.svg(title: experiment.title), query: query)
    }
}

extension EvaluationPlan.Experiment {
    /// Two numbers varied at once, over which a map is drawn.
    var isMap: Bool { varied.count == 2 && varied.allSatisfy(\.isNumeric) && points.count > 8 }

    /// Whether each varied parameter means something to every technique.
    var isForAllTechniques: Bool {
        !varied.contains { $0.definition.isOfTechnique }
    }

    /// What is kept and what is varied.
    var words: String {
        guard let first = points.first else { return "" }
        let fixed = Parameter.allCases.filter { parameter in
            parameter != .technique && !parameter.definition.isOfTechnique && parameter.text(first) != nil
                && Set(points.map { parameter.text($0) }).count == 1
        }
        let values = fixed.map { "\($0.rawValue) \($0.text(first)!)" }.joined(separator: ", ")
        let names = varied.map(\.rawValue).joined(separator: " and ")
        return (names.isEmpty ? "" : "Varied: \(names). ")
            + "Fixed: \(values). \(repetitions) runs a point are planned."
    }
}

// Questions of the report about dirty rates: where an advantage ends, and whether the mean tells enough.
import GRDB

extension EvaluationReport {
    // ---- At what λ does the advantage end? -----------------------------------------------------------------

    func advantageEnd(_ places: Places) -> Answered {
        let question = "At what λ does MiGrror's advantage over pre-copy end?"
        let pairs = places.pairs(.migrror, .preCopy).filter { $0.first.parameters.lambda != nil }
        var (sentences, rows): ([String], [[String]]) = ([], [])
        var series: [PlotSeries] = []
        func lineName(_ pair: Places.Pair) -> String {
            pair.experiment.name + places.conditions(pair.first.parameters, without: [.lambda])
        }
        for (index, name) in pairs.map(lineName).uniqued.enumerated() {
            let line = pairs.filter { lineName($0) == name }
                .sorted { $0.first.parameters.lambda! < $1.first.parameters.lambda! }
            guard line.count > 2 else { continue }
            let place = line[0].experiment.title
            let held = line.map { pair in
                (
                    lambda: pair.first.parameters.lambda!,
                    difference: Comparison(pair.first.seenBlocks, pair.second.seenBlocks), pair: pair
                )
            }
            sentences.append(Self.end(place, held.map { ($0.lambda, $0.difference.sign) }))
            series.append(
                PlotSeries(
                    name: place, look: Look.palette[index % Look.palette.count],
                    points: held.filter { min($0.difference.medians.first, $0.difference.medians.second) > 0 }.map {
                        let interval = $0.difference.ratioInterval
                        return PlotPoint($0.lambda, $0.difference.ratio, interval?.lower, interval?.upper)
                    }))
            rows += held.map { lambda, difference, pair in
                let time = Comparison(pair.first.blocks("handover_ms"), pair.second.blocks("handover_ms"))
                return [
                    place, tickText(lambda), medianText(pair.first.seenDowntimes),
                    medianText(pair.second.seenDowntimes),
                    difference.text, time.text, "\(pair.first.rows.count)+\(pair.second.rows.count)",
                ]
            }
        }
        guard !rows.isEmpty else {
            return Answered(
                question: question, answer: Answered.silent + "they need both techniques at three values of λ or more.")
        }
        let plot = Plot(
            x: Axis(Parameter.lambda.title), y: Axis("downtime, MiGrror ÷ pre-copy", .log), series: series,
            levels: [(1, "equal")])
        return Answered(
            question: question, answer: sentences.joined(separator: " "),
            figure: ReportFigure(
                id: "ratio-by-lambda", title: "MiGrror's downtime over pre-copy's, by dirty rate",
                reading: "Ratio of the medians with its 95 % interval; below the line MiGrror's is shorter.",
                svg: plot.svg(title: "downtime ratio by λ"), query: Places.query),
            table: ReportTable(
                columns: [
                    .init("at", false), .init("λ"), .init("MiGrror (ms)"), .init("pre-copy (ms)"),
                    .init("difference (ms)"), .init("trigger to release, difference (ms)"), .init("runs"),
                ], rows: rows, note: "Downtime as the client saw it, or the workload where there is none.",
                query: Places.query))
    }

    /// - Parameter signs: of MiGrror's downtime less pre-copy's, by rising λ.
    static func end(_ place: String, _ signs: [(lambda: Double, sign: Int)]) -> String {
        let lost = signs.filter { $0.sign > 0 }.map { tickText($0.lambda) }
        let losses = lost.isEmpty ? "" : "; it is longer at λ = \(lost.joined(separator: ", "))"
        guard let last = signs.lastIndex(where: { $0.sign < 0 }) else {
            return "\(place): MiGrror's downtime is at no λ shown to be shorter\(losses)."
        }
        let won = signs.filter { $0.sign < 0 }.map { tickText($0.lambda) }.joined(separator: ", ")
        guard last + 1 < signs.count else {
            return "\(place): shorter at λ = \(won), the greatest measured among them, so no end is seen\(losses)."
        }
        return "\(place): shorter at λ = \(won), no longer from λ = \(tickText(signs[last + 1].lambda)) on\(losses)."
    }

    // ---- Does the average dirty rate predict it? -----------------------------------------------------------

    func averageRate(_ places: Places) -> Answered {
        let question = "Does the average dirty rate predict the downtime?"
        let lines = places.groups(by: [.profile, .profilePeriod], of: places.all).filter { line in
            line.count > 1 && line.contains { $0.parameters.profile == .constant }
        }
        guard !lines.isEmpty else {
            return Answered(
                question: question,
                answer: Answered.silent + "they need a constant and a varying dirty rate of the same mean.")
        }
        var (rows, shown, compared): ([[String]], [String], Int) = ([], [], 0)
        for line in lines {
            let steady = line.first { $0.parameters.profile == .constant }!
            let place = places.name(steady.parameters, without: [.profile, .profilePeriod])
            for one in line {
                let run = one.parameters
                let profile =
                    run.profile.rawValue
                    + (run.profile == .constant ? "" : ", \(Parameter.profilePeriod.text(run) ?? "") s")
                let downtime = Comparison(one.seenBlocks, steady.seenBlocks)
                let isSteady = run.profile == .constant
                if !isSteady {
                    compared += 1
                    if downtime.sign != 0 {
                        shown.append("\(one.technique) at \(place), \(profile): \(downtime.text) ms")
                    }
                }
                rows.append([
                    one.technique, place, profile, "\(one.rows.count)", medianText(one.seenDowntimes),
                    isSteady ? "–" : downtime.text, measured(Sample(one.seenDowntimes).max),
                    medianText(one.values("migration_time_ms")),
                    medianText(one.values("bytes_sent").map { $0 / 1_048_576 }),
                ])
            }
        }
        let answer =
            shown.isEmpty
            ? "No difference to a constant rate of the same mean is shown in any of \(compared) comparisons."
            : "Not at \(shown.count) of \(compared) comparisons: the downtime differs from that at a constant rate of the "
                + "same mean. \(shown.joined(separator: "; "))."
        return Answered(
            question: question, answer: answer,
            table: ReportTable(
                columns: [
                    .init("technique", false), .init("at", false), .init("dirty rate", false), .init("n"),
                    .init("downtime (ms)"), .init("difference to constant (ms)"), .init("greatest (ms)"),
                    .init("migration time (ms)"), .init("traffic (MiB)"),
                ], rows: rows, note: "All rows of a technique and place have the same mean dirty rate.",
                query: Places.query))
    }
}

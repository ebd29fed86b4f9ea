// The report's first screen: three sentences, a forest plot, and what each part of a technique does to the downtime.
import Testbed

/// MiGrror and pre-copy at every place where both were measured, by one metric.
struct Contrast {
    struct Row {
        var pair: Places.Pair
        var name: String
        var comparison: Comparison
        var test: RankTest
        /// The rank test's, by Holm within the metric.
        var p: Double
    }
    let rows: [Row]

    /// - Parameter values: a side's, by block; places without any are left out.
    init(
        _ places: Places, of pairs: [Places.Pair], isTime: Bool = true, _ values: (PlaceRuns) -> [[Double]]
    ) {
        let held = pairs.compactMap { pair -> (Places.Pair, Comparison, RankTest)? in
            let (first, second) = (values(pair.first), values(pair.second))
            guard let test = RankTest(first.flatMap(\.self), second.flatMap(\.self)) else { return nil }
            return (pair, Comparison(first, second, isTime: isTime), test)
        }
        rows = zip(held, holm(held.map(\.2.p))).map { entry, p in
            Row(pair: entry.0, name: places.name(entry.0), comparison: entry.1, test: entry.2, p: p)
        }
    }

    /// Those shown to differ by more than the margin, the greatest ratios (or the least) first.
    var worse: [Row] {
        rows.filter { $0.comparison.sign > 0 && $0.comparison.isRelevant }
            .sorted { $0.comparison.ratio > $1.comparison.ratio }
    }
    var better: [Row] {
        rows.filter { $0.comparison.sign < 0 && $0.comparison.isRelevant }
            .sorted { $0.comparison.ratio < $1.comparison.ratio }
    }
    /// Those shown to differ by no more than the margin.
    var equal: [Row] {
        rows.filter { $0.comparison.finding == .equivalent || $0.comparison.sign != 0 && !$0.comparison.isRelevant }
    }

    /// Ratios with their intervals, a row a place.
    func forest(_ what: String) -> RowPlot {
        let lines = rows.map { row -> RowPlot.Row in
            let comparison = row.comparison, isRatio = min(comparison.medians.first, comparison.medians.second) > 0
            let sign = comparison.isRelevant ? comparison.sign : 0
            let look =
                sign < 0
                ? Look.of("MiGrror", 0)
                : sign > 0 ? Look.of("pre-copy", 0) : Look(color: "#777777", shape: .circle, filled: false)
            let values = row.name.dropFirst(row.pair.experiment.title.count).drop { ", ".contains($0) }
            return RowPlot.Row(
                group: row.pair.experiment.title, name: values.isEmpty ? "" : String(values), look: look,
                median: isRatio ? comparison.ratio : nil, interval: isRatio ? comparison.ratioInterval : nil,
                note: "\(measured(comparison.medians.first)) : \(measured(comparison.medians.second)) ms")
        }
        return RowPlot(
            axis: Axis("\(what), MiGrror ÷ pre-copy", .log), rows: lines, levels: [(1, "")],
            band: 1 - Comparison.margin.share...1 + Comparison.margin.share,
            sides: ("MiGrror shorter", "pre-copy shorter"))
    }
}

extension EvaluationReport {
    /// The pairs that decide: at an external trigger, if there are any.
    private func deciding(_ places: Places) -> (pairs: [Places.Pair], endpoint: String) {
        let all = places.pairs(.migrror, .preCopy)
        let atTrigger = all.filter { $0.first.parameters.handover == .atTrigger }
        let pairs = atTrigger.isEmpty ? all : atTrigger
        let seen = pairs.allSatisfy { $0.first.hasClient && $0.second.hasClient } ? "client downtime" : "downtime"
        return (pairs, atTrigger.isEmpty ? "\(seen) of handovers when ready" : "\(seen) at an external trigger")
    }

    /// Empty where nothing is compared.
    func summary(_ places: Places) throws -> ReportSection {
        let (pairs, endpoint) = deciding(places)
        let contrast = Contrast(places, of: pairs, \.seenBlocks)
        guard !contrast.rows.isEmpty else { return ReportSection(title: "In three sentences", blocks: []) }
        var blocks: [ReportBlock] = [
            .list([
                Self.losses(contrast, endpoint), Self.gains(contrast), price(places, contrast.rows.map(\.pair)),
            ]),
            .figure(
                ReportFigure(
                    id: "forest", title: "MiGrror against pre-copy: \(endpoint)",
                    reading:
                        "Ratio of the medians with its 95 % interval, at each place the two medians (MiGrror : pre-copy). Left of "
                        + "the line MiGrror's downtime is shorter. Hollow: no difference above \(plain(Comparison.margin.milliseconds)) ms "
                        + "and a tenth is shown.",
                    svg: contrast.forest(endpoint).svg(title: "MiGrror over pre-copy"), query: Places.query)),
        ]
        if let figure = parts(places, pairs) { blocks.append(.figure(figure)) }
        return ReportSection(title: "In three sentences", blocks: blocks)
    }

    private static func text(_ row: Contrast.Row) -> String {
        let interval = row.comparison.ratioInterval.map { " [\(measured($0.lower)), \(measured($0.upper))]" } ?? ""
        return "“\(row.name)” (\(measured(row.comparison.medians.first)) ms, pre-copy "
            + "\(measured(row.comparison.medians.second)), \(measured(row.comparison.ratio)) times\(interval))"
    }

    private static func losses(_ contrast: Contrast, _ endpoint: String) -> String {
        guard let worst = contrast.worse.first else {
            return
                "Worse first: MiGrror's \(endpoint) is at none of \(contrast.rows.count) places shown to be longer than "
                + "pre-copy's."
        }
        return "Worse first: MiGrror's \(endpoint) is longer than pre-copy's at \(contrast.worse.count) of "
            + "\(contrast.rows.count) places, most at \(text(worst))."
    }

    private static func gains(_ contrast: Contrast) -> String {
        let equal = contrast.equal.count
        let open = contrast.rows.count - contrast.worse.count - contrast.better.count - equal
        let others =
            (equal > 0 ? "; at \(equal) there is no difference that matters" : "")
            + (open > 0 ? "; at \(open) these runs do not show any" : "")
        guard let best = contrast.better.first else {
            return "It is at no place shown to be shorter\(others)."
        }
        return "It is shorter at \(contrast.better.count) of them, most at \(text(best))\(others)."
    }

    private func price(_ places: Places, _ pairs: [Places.Pair]) -> String {
        let mine = pairs.flatMap(\.first.seenDowntimes)
        var text = "Under 10 ms were \(mine.count { $0 < 10 }) of these \(mine.count) migrations by MiGrror"
        let traffic = pairs.compactMap { pair -> Double? in
            let (a, b) = (pair.first.values("bytes_sent"), pair.second.values("bytes_sent"))
            return a.isEmpty || b.isEmpty ? nil : Sample(a).median / Sample(b).median
        }
        if !traffic.isEmpty {
            let sample = Sample(traffic)
            text +=
                ", which sent \(measured(sample.median)) times pre-copy's bytes (\(measured(sample.min)) to "
                + "\(measured(sample.max)) over the places)"
        }
        let quiet = pairs.compactMap(\.control).flatMap(\.seenDowntimes)
        if !quiet.isEmpty {
            text += "; with no migration the same measurement says \(medianText(quiet)) ms"
        }
        return text + "."
    }

    /// The median over what most of the deciding experiments vary, a series for each technique of each experiment.
    private func parts(_ places: Places, _ pairs: [Places.Pair]) -> ReportFigure? {
        guard let parameter = pairs.lazy.compactMap({ $0.experiment.varied.first }).first, parameter.isNumeric else {
            return nil
        }
        let policy = pairs[0].first.parameters.handover
        let experiments = plan.experiments.filter { experiment in
            experiment.varied == [parameter] && experiment.points.allSatisfy { $0.handover == policy }
                && experiment.points.contains { $0.technique == .migrror || $0.technique == .preCopy }
        }
        guard experiments.count > 1 else { return nil }
        let dashes = ["", "7 4", "2 3", "9 3 2 3"]
        let series = experiments.enumerated().flatMap { index, experiment in
            [EvaluatedTechnique.preCopy, .migrror].compactMap { technique -> PlotSeries? in
                let points = experiment.points.filter { $0.technique == technique }.compactMap { point -> PlotPoint? in
                    guard let x = parameter.number(point), let values = places.at(point)?.seenDowntimes,
                        !values.isEmpty
                    else { return nil }
                    let interval = Bootstrap(resamples: 2000).median(of: values)
                    return PlotPoint(rounded(x), Sample(values).median, interval?.lower, interval?.upper)
                }
                guard !points.isEmpty else { return nil }
                var look = Look.of(technique.name, 0)
                (look.dash, look.filled) = (dashes[index % dashes.count], index % 2 == 0)
                return PlotSeries(name: "\(technique.name): \(experiment.title)", look: look, points: points)
            }
        }
        let plot = Plot(
            x: Axis(parameter.title), y: Axis("downtime (ms)", .log), series: series, levels: [(10, "10 ms")],
            width: 900, height: 420)
        return ReportFigure(
            id: "parts", title: "What each part does",
            reading:
                "Medians with 95 % intervals, downtime as the client saw it; each line a technique in one experiment.",
            svg: plot.svg(title: "what each part does"), query: Places.query)
    }
}

// The report's section that holds models against measurements.
import GRDB
import Migration

extension RunParameters {
    /// What the models need to know; nil: they leave out what matters here.
    var scenario: MigrationScenario? {
        guard workload == .dirtier, handover == .whenReady, share == 100, loss == 0 else { return nil }
        let size = Double(memory)
        var scenario = MigrationScenario(
            size: size, dirtyRate: Double(workloadOptions.dirtyRate) * 4096,
            workingSet: size * Double(workingSet) / 100, bandwidth: bytesPerSecond ?? .infinity,
            roundTrip: 0.1 + roundTrip)
        (scenario.containers, scenario.maxRounds, scenario.downtimeLimit) = (containers, maxRounds, readyWithin)
        scenario.writesAtRandom = (distribution ?? .uniform) == .uniform
        return scenario
    }
}

extension EvaluationReport {
    func models(_ places: Places) throws -> ReportSection {
        let predicted = places.all.compactMap { place -> (place: PlaceRuns, prediction: Prediction)? in
            guard let scenario = place.parameters.scenario, places.isPlain(place.parameters) else { return nil }
            let predictor = Predictor(scenario, engine: .plain)
            switch place.parameters.technique {
            case .engine(let technique): return (place, predictor.predict(technique))
            case .criu(.cold): return (place, predictor.criuCold)
            default: return nil
            }
        }
        guard !predicted.isEmpty else { return ReportSection(title: "Model against measurement", blocks: []) }
        var errors: [[String]] = []
        func figure(_ id: String, _ what: String, _ column: String, _ value: (Prediction) -> Double) -> ReportFigure {
            var all: [Double] = []
            var series = predicted.map(\.place.technique).uniqued.enumerated().map { index, technique in
                let points = predicted.filter { $0.place.technique == technique }.map {
                    place, prediction -> PlotPoint in
                    let values = place.values(column)
                    let interval = Bootstrap(resamples: 1000).median(of: values)
                    return PlotPoint(value(prediction), Sample(values).median, interval?.lower, interval?.upper)
                }.sorted { $0.x < $1.x }
                all += points.flatMap { [$0.x, $0.y] }
                let relative = Sample(points.map { abs($0.x / $0.y - 1) * 100 })
                errors.append([technique, what, "\(points.count)", measured(relative.median), measured(relative.max)])
                return PlotSeries(name: technique, style: .dots, look: Look.of(technique, index), points: points)
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
                svg: plot.svg(title: what), query: Places.query)
        }
        let figures = [
            figure("model-downtime", "downtime", "engine_downtime_ms", \.downtime),
            figure("model-time", "migration time", "migration_time_ms", \.migrationTime),
        ]
        let fits = fitted(places)
        return ReportSection(
            title: "Model against measurement",
            blocks: [
                .text(
                    "Cold as M/b, pre-copy by Liu et al. 2011, MiGrror as a mirror whose syncs follow each other (our derivation, since "
                        + "the authors' equations are not public; the queue of events that they draw is not in it), containers that move at once with equal parts of the link. The "
                        + "engine's constants are those of `apus predict`, measured before and elsewhere: nothing was fitted "
                        + "to these runs. Of handovers when ready; a migration's time contains negotiating and the copy of "
                        + "the root file system, which the models leave out.")
            ] + figures.map { .figure($0) } + [
                .table(
                    ReportTable(
                        columns: [
                            .init("technique", false), .init("of", false), .init("points"), .init("median error (%)"),
                            .init("greatest (%)"),
                        ], rows: errors, note: "|model / measured median - 1|.", query: Places.query))
            ] + (fits.rows.isEmpty ? [] : [.table(fits)]))
    }

    /// The engine's constants as these runs have them: a line over the state's size, all else equal, at little load.
    private func fitted(_ places: Places) -> ReportTable {
        let calm = places.all.filter {
            $0.parameters.scenario != nil && places.isPlain($0.parameters) && $0.parameters.bandwidth != .unlimited
                && ($0.parameters.effectiveLambda ?? 1) <= 0.101
        }
        let lines = places.groups(by: [.memory], of: calm).filter { $0.count > 2 }.compactMap { line -> [String]? in
            let points = line.flatMap { place in
                place.values("engine_downtime_ms").map { (size: Double(place.parameters.memory), downtime: $0) }
            }
            // A line that explains nothing is no finding.
            guard let fit = ParameterFit(points), fit.line.determination >= 0.5 else { return nil }
            let run = line[0].parameters
            return [
                run.technique.name, places.name(run, without: [.memory]), "\(points.count)", measured(fit.fixed),
                measured(fit.perGiB),
                run.technique == .cold ? (fit.bandwidth.map { measured($0 * 8 / 1e6) } ?? "–") : "–",
                measured(fit.line.determination), fit.line.medianRelativeError.map { measured($0 * 100) } ?? "–",
                fit.line.maximumRelativeError.map { measured($0 * 100) } ?? "–",
            ]
        }
        return ReportTable(
            columns: [
                .init("technique", false), .init("at", false), .init("runs"), .init("fixed (ms)"),
                .init("per GiB (ms)"), .init("goodput (Mbit/s)"), .init("R²"), .init("median error (%)"),
                .init("greatest (%)"),
            ], rows: lines,
            note:
                "Downtime = fixed + growth × size, least squares over the runs with λ of at most 0.1; the errors are the "
                + "fit's. Fits with an R² below 0.5 are left out.", query: Places.query)
    }
}

// From answers to charts.
import Glibc

extension Answer {
    /// Medians with their intervals over the varied parameter; every single value where nothing is varied.
    func plot(x parameter: Parameter?, y title: String, levels: [(value: Double, label: String)] = []) -> Plot {
        let names = groups.map(\.xText).uniqued
        let numeric = parameter != nil && groups.allSatisfy { $0.x != nil } && names.count > 1
        let axis: Axis
        if numeric {
            let values = groups.compactMap(\.x)
            let isWide = (values.min() ?? 0) > 0 && (values.max() ?? 0) / (values.min() ?? 1) >= 20
            axis = Axis(parameter!.title, isWide ? .log : .linear)
        } else {
            axis = Axis(parameter?.title ?? "technique", .names(names))
        }
        let medians = groups.map(\.sample.median).filter { $0 > 0 }
        let isWide = (medians.max() ?? 1) / (medians.min() ?? 1) > 30
        let lines = series.enumerated().map { index, name in
            PlotSeries(
                name: name, look: look(name, index),
                points: groups.filter { $0.series == name }.map { group in
                    PlotPoint(
                        numeric ? group.x! : Double(names.firstIndex(of: group.xText)!), group.sample.median,
                        group.interval?.lower, group.interval?.upper)
                })
        }
        var plot = Plot(
            x: axis, y: Axis(title, isWide ? .log : .linear, from: isWide ? nil : 0), series: lines, levels: levels)
        plot.namesSeries = parameter != nil
        return plot
    }

    private func look(_ name: String, _ index: Int) -> Look {
        let technique = name.split(separator: " ").first.map(String.init) ?? name
        let sameTechnique = series.filter { $0.hasPrefix(technique) }
        if sameTechnique.count == 1 { return Look.of(technique, index) }
        return Look.palette[index % Look.palette.count]
    }

    /// Where a series, as a plot draws it, rises above a level for good: on the line between the last place below and
    /// the first above; nil: it does not.
    func knee(_ name: String, at level: Double, in plot: Plot) -> Double? {
        let line = groups.filter { $0.series == name }.compactMap { group in
            group.x.map { (x: $0, y: group.sample.median) }
        }.sorted { $0.x < $1.x }
        guard let below = line.lastIndex(where: { $0.y <= level }), below + 1 < line.count else { return nil }
        let (a, b) = (line[below], line[below + 1])
        func drawn(_ value: Double, _ axis: Axis) -> Double { axis.kind == .log ? log(max(value, 1e-9)) : value }
        let share =
            (drawn(level, plot.y) - drawn(a.y, plot.y)) / (drawn(b.y, plot.y) - drawn(a.y, plot.y))
        let x = drawn(a.x, plot.x) + share * (drawn(b.x, plot.x) - drawn(a.x, plot.x))
        return plot.x.kind == .log ? exp(x) : x
    }
}

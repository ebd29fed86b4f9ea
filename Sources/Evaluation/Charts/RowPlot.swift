// A chart with a row for each of many: a median with its interval, the single values, or both.

/// Rows of values along one axis, in groups. With ratios it is a forest plot.
struct RowPlot {
    struct Row {
        /// Rows of one group stand together under its name.
        var group: String
        var name: String
        var look: Look
        /// Nil: there is none, and the row says so by its note alone.
        var median: Double?
        var interval: ConfidenceInterval?
        /// Each value on its own.
        var values: [Double] = []
        /// At the end of the row.
        var note = ""
    }
    var axis: Axis
    var rows: [Row]
    /// Lines down the chart: a value with a word to it.
    var levels: [(value: Double, label: String)] = []
    /// A stretch within which nothing matters.
    var band: ClosedRange<Double>?
    /// What the sides of the first level mean.
    var sides: (left: String, right: String)?
    var width = 900.0

    private static let step = 21.0

    func svg(title: String) -> String {
        let groups = rows.map(\.group).uniqued
        let lines = rows.count + (groups.count > 1 ? groups.count : 0)
        let top = 34.0, bottom = top + Self.step * Double(max(lines, 1))
        var drawing = SVG(width: width, height: bottom + 48)
        guard !rows.isEmpty else {
            drawing.label("no data", width / 2, bottom / 2, .middle, size: 16, fill: "#777")
            return drawing.text(title: title)
        }
        let left = 24 + 6.6 * Double(rows.map(\.name.count).max() ?? 0)
        let right = width - 24 - 6.4 * Double(rows.map(\.note.count).max() ?? 0)
        let all = rows.flatMap { row in
            row.values + [row.median, row.interval?.lower, row.interval?.upper].compactMap { $0 }
        }
        let scale = Scale(
            axis, all + levels.map(\.value) + (band.map { [$0.lowerBound, $0.upperBound] } ?? []), start: left,
            end: right)
        if let band {
            let (a, b) = (scale.pixel(band.lowerBound), scale.pixel(band.upperBound))
            drawing.rectangle(a, top, b - a, bottom - top, "fill=\"#ececec\"")
        }
        for (at, label) in scale.spacedTicks {
            drawing.line(at, top, at, bottom, "stroke=\"#e3e3e3\"")
            if let label { drawing.label(label, at, bottom + 18, .middle, size: 12) }
        }
        for level in levels {
            let at = scale.pixel(level.value)
            drawing.line(at, top, at, bottom, "stroke=\"#a00\" stroke-dasharray=\"3 3\"")
            if !level.label.isEmpty { drawing.label(level.label, at, top - 4, .middle, size: 12, fill: "#a00") }
        }
        if let sides, let level = levels.first {
            let at = scale.pixel(level.value)
            drawing.label("← " + sides.left, at - 10, 14, .end, size: 12, fill: "#555")
            drawing.label(sides.right + " →", at + 10, 14, size: 12, fill: "#555")
        }
        var y = top
        for group in groups {
            if groups.count > 1 {
                drawing.label(group, 8, y + 15, bold: true)
                y += Self.step
            }
            for row in rows where row.group == group {
                draw(row, scale, &drawing, y + Self.step / 2, left, right)
                y += Self.step
            }
        }
        drawing.line(left, bottom, right, bottom, "stroke=\"#444\"")
        drawing.label(axis.title, (left + right) / 2, bottom + 40, .middle)
        return drawing.text(title: title)
    }

    private func draw(
        _ row: Row, _ scale: Scale, _ drawing: inout SVG, _ y: Double, _ left: Double, _ right: Double
    ) {
        drawing.label(row.name, left - 10, y + 4, .end, size: 12.5)
        if !row.note.isEmpty { drawing.label(row.note, right + 12, y + 4, size: 12) }
        let dot = Look(color: row.look.color, shape: .circle)
        for value in row.values where value.isFinite {
            drawing.marker(dot, scale.pixel(value), y, 2.2, opacity: 0.45)
        }
        guard let median = row.median, median.isFinite else { return }
        if let interval = row.interval {
            let (a, b) = (scale.pixel(interval.lower), scale.pixel(interval.upper))
            let line = "stroke=\"\(row.look.color)\" stroke-width=\"1.8\""
            drawing.line(a, y, b, y, line)
            for end in [a, b] { drawing.line(end, y - 4, end, y + 4, line) }
        }
        drawing.marker(row.look, scale.pixel(median), y, 4.5)
    }
}

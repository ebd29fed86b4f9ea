// A chart with two axes: lines with intervals, single points, steps, shaded stretches, in any mixture.

/// What is measured at one place of the x axis.
struct PlotPoint {
    var x: Double
    var y: Double
    /// The interval around `y`.
    var low: Double?
    var high: Double?
    init(_ x: Double, _ y: Double, _ low: Double? = nil, _ high: Double? = nil) {
        (self.x, self.y, self.low, self.high) = (x, y, low, high)
    }
}

struct PlotSeries {
    enum Style: Hashable {
        /// Markers with intervals, joined by lines.
        case line
        /// A dashed curve without markers: a model.
        case model
        /// Each value on its own.
        case dots
        /// A distribution.
        case steps
    }
    var name: String
    var style = Style.line
    var look: Look
    var points: [PlotPoint]
}

struct Plot {
    var x: Axis
    var y: Axis
    var series: [PlotSeries]
    /// Lines across the chart: a value of y with a word to it.
    var levels: [(value: Double, label: String)] = []
    /// Lines down the chart: a value of x with a word to it.
    var marks: [(value: Double, label: String)] = []
    /// Shaded stretches of x.
    var shades: [(from: Double, to: Double)] = []
    /// Whether a legend tells the series apart; false where the x axis does.
    var namesSeries = true
    var width = 720.0
    var height = 380.0

    func svg(title: String) -> String {
        var drawing = SVG(width: width, height: height)
        let shown = series.filter { !$0.points.isEmpty }
        guard !shown.isEmpty else {
            drawing.label("no data", width / 2, height / 2, .middle, size: 16, fill: "#777")
            return drawing.text(title: title)
        }
        let points = shown.flatMap(\.points)
        let ys = Scale(
            y, points.flatMap { [$0.y, $0.low ?? $0.y, $0.high ?? $0.y] } + levels.map(\.value), start: 0, end: 1)
        // Room for the longest label of the y axis.
        let left = 34 + 7.2 * Double(ys.ticks.map(\.label.count).max() ?? 3)
        let legendRows = legendLines(shown, width: width - left - 16)
        let top = 12 + 20 * Double(legendRows.count)
        let frame = (left: left, top: top, right: width - 18, bottom: height - 48)
        let xScale = Scale(x, points.map(\.x) + marks.map(\.value), start: frame.left, end: frame.right)
        let yScale = Scale(
            y, points.flatMap { [$0.y, $0.low ?? $0.y, $0.high ?? $0.y] } + levels.map(\.value), start: frame.bottom,
            end: frame.top)
        drawing.clipped(frame.left, frame.top, frame.right - frame.left, frame.bottom - frame.top) { drawing in
            for shade in shades {
                let (a, b) = (xScale.pixel(shade.from), xScale.pixel(shade.to))
                drawing.rectangle(
                    a, frame.top, max(1.5, b - a), frame.bottom - frame.top, "fill=\"#f2c14e\" opacity=\"0.45\"")
            }
        }
        axes(&drawing, xScale, yScale, frame)
        drawing.clipped(frame.left - 6, frame.top - 6, frame.right - frame.left + 12, frame.bottom - frame.top + 12) {
            drawing in
            for (index, one) in shown.enumerated() { draw(one, index, shown.count, &drawing, xScale, yScale) }
        }
        legend(&drawing, legendRows, left: frame.left)
        return drawing.text(title: title)
    }

    private func axes(
        _ drawing: inout SVG, _ xScale: Scale, _ yScale: Scale,
        _ frame: (left: Double, top: Double, right: Double, bottom: Double)
    ) {
        for tick in yScale.ticks {
            let at = yScale.pixel(tick.value)
            drawing.line(frame.left, at, frame.right, at, "stroke=\"#e3e3e3\"")
            drawing.label(tick.label, frame.left - 6, at + 4, .end, size: 12)
        }
        for (at, label) in xScale.spacedTicks {
            drawing.line(at, frame.bottom, at, frame.bottom + 4, "stroke=\"#444\"")
            if let label { drawing.label(label, at, frame.bottom + 18, .middle, size: 12) }
        }
        for level in levels where yScale.shows(level.value) {
            let at = yScale.pixel(level.value)
            drawing.line(frame.left, at, frame.right, at, "stroke=\"#a00\" stroke-dasharray=\"3 3\"")
            drawing.label(level.label, frame.right - 4, at - 4, .end, size: 12, fill: "#a00")
        }
        for mark in marks where xScale.shows(mark.value) {
            let at = xScale.pixel(mark.value)
            drawing.line(at, frame.top, at, frame.bottom, "stroke=\"#a00\" stroke-dasharray=\"3 3\"")
            drawing.label(mark.label, at - 5, frame.top + 13, .end, size: 12, fill: "#a00")
        }
        drawing.path(
            [(frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)], "stroke=\"#444\"")
        drawing.label(x.title, (frame.left + frame.right) / 2, frame.bottom + 40, .middle)
        drawing.label(y.title, 14, (frame.top + frame.bottom) / 2, .middle, turned: true)
    }

    private func draw(
        _ one: PlotSeries, _ index: Int, _ count: Int, _ drawing: inout SVG, _ xScale: Scale, _ yScale: Scale
    ) {
        let points = one.points.filter { xScale.shows($0.x) && yScale.shows($0.y) }
        let line = "stroke=\"\(one.look.color)\" stroke-width=\"1.8\""
        let dash = one.look.dash.isEmpty ? "" : " stroke-dasharray=\"\(one.look.dash)\""
        // Series that share a place stand side by side, so that none hides another.
        var shift = 0.0
        if one.style == .line, namesSeries {
            let isNames = if case .names = xScale.kind { true } else { false }
            let most = isNames ? min(26, 260 / Double(count * count)) : min(5, 20 / Double(count))
            shift = (Double(index) - Double(count - 1) / 2) * most
        }
        let places = points.map { (x: xScale.pixel($0.x) + shift, y: yScale.pixel($0.y)) }
        switch one.style {
        case .model: drawing.path(places, "stroke=\"\(one.look.color)\" stroke-width=\"1.3\" stroke-dasharray=\"2 4\"")
        case .dots:
            let opacity = points.count > 300 ? 0.45 : 0.8
            for place in places {
                drawing.marker(one.look, place.x, place.y, points.count > 300 ? 1.6 : 3, opacity: opacity)
            }
        case .steps:
            var corners: [(x: Double, y: Double)] = []
            for place in places {
                if let last = corners.last { corners.append((place.x, last.y)) }
                corners.append(place)
            }
            drawing.path(corners, line + dash)
        case .line:
            if case .names = xScale.kind {} else { drawing.path(places, line + dash) }
            for (point, place) in zip(points, places) {
                if let low = point.low, let high = point.high, yScale.shows(low), yScale.shows(high) {
                    let (a, b) = (yScale.pixel(low), yScale.pixel(high))
                    drawing.line(place.x, a, place.x, b, line)
                    for end in [a, b] { drawing.line(place.x - 4, end, place.x + 4, end, line) }
                }
                drawing.marker(one.look, place.x, place.y, 4)
                if yScale.isBelow(point.y) { drawing.label("≤ 0", place.x + 7, place.y - 3, size: 11) }
            }
        }
    }

    /// The legend above the chart, in as many lines as it needs.
    private func legendLines(_ shown: [PlotSeries], width: Double) -> [[PlotSeries]] {
        guard namesSeries else { return [] }
        var (lines, room): ([[PlotSeries]], Double) = ([[]], width)
        for one in shown {
            let needs = 44 + 7.2 * Double(one.name.count)
            if needs > room, !lines[lines.count - 1].isEmpty {
                lines.append([])
                room = width
            }
            lines[lines.count - 1].append(one)
            room -= needs
        }
        return lines
    }

    private func legend(_ drawing: inout SVG, _ lines: [[PlotSeries]], left: Double) {
        for (row, line) in lines.enumerated() {
            var at = left
            let y = 14 + 20 * Double(row)
            for one in line {
                let dash = one.style == .model ? "2 4" : one.look.dash
                if one.style != .dots {
                    drawing.line(
                        at, y, at + 26, y,
                        "stroke=\"\(one.look.color)\" stroke-width=\"1.8\" stroke-dasharray=\"\(dash)\"")
                }
                if one.style == .line || one.style == .dots { drawing.marker(one.look, at + 13, y, 4) }
                drawing.label(one.name, at + 32, y + 4, size: 12.5)
                at += 44 + 7.2 * Double(one.name.count)
            }
        }
    }
}

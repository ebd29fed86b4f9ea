// Stacked bars, and a map of squares.

/// Horizontal bars, each a sum of parts.
struct StackedBars {
    var axis: String
    var parts: [String]
    /// A bar's name and the size of each part.
    var bars: [(name: String, sizes: [Double])]
    var width = 720.0

    // Light and dark in turn, so that neighbours differ in grey print too.
    private static let fills = ["#56B4E9", "#00496e", "#E69F00", "#8a3d00", "#bbbbbb", "#009E73", "#333333", "#CC79A7"]

    func svg(title: String) -> String {
        let top = 40.0, step = 30.0
        let height = top + step * Double(max(bars.count, 1)) + 52
        var drawing = SVG(width: width, height: height)
        guard !bars.isEmpty else {
            drawing.label("no data", width / 2, height / 2, .middle, size: 16, fill: "#777")
            return drawing.text(title: title)
        }
        let left = 20 + 7 * Double(bars.map(\.name.count).max() ?? 0)
        let scale = Scale(
            Axis(axis, from: 0), bars.map { $0.sizes.reduce(0, +) * 1.08 }, start: left, end: width - 30)
        let bottom = top + step * Double(bars.count)
        for tick in scale.ticks where tick.value <= scale.high {
            let at = scale.pixel(tick.value)
            drawing.line(at, top - 4, at, bottom, "stroke=\"#e3e3e3\"")
            drawing.label(tick.label, at, bottom + 18, .middle, size: 12)
        }
        for (row, bar) in bars.enumerated() {
            let y = top + step * Double(row)
            drawing.label(bar.name, left - 8, y + 18, .end)
            var sum = 0.0
            for (part, size) in bar.sizes.enumerated() where size > 0 {
                let (a, b) = (scale.pixel(sum), scale.pixel(sum + size))
                drawing.rectangle(
                    a, y + 4, max(0.8, b - a), 20,
                    "fill=\"\(Self.fills[part % Self.fills.count])\" stroke=\"white\" stroke-width=\"0.6\"")
                sum += size
            }
            drawing.label(measured(sum), scale.pixel(sum) + 6, y + 18, size: 12)
        }
        var at = left
        for (part, name) in parts.enumerated() {
            drawing.rectangle(at, 10, 14, 14, "fill=\"\(Self.fills[part % Self.fills.count])\"")
            drawing.label(name, at + 19, 22, size: 12.5)
            at += 36 + 7.2 * Double(name.count)
        }
        drawing.line(left, top - 4, left, bottom, "stroke=\"#444\"")
        drawing.label(axis, (left + width - 30) / 2, bottom + 40, .middle)
        return drawing.text(title: title)
    }
}

/// Which of several is best where: squares over two parameters.
struct HeatMap {
    struct Cell {
        /// nil: nothing was measured.
        var best: String?
        /// Shown in the square, line by line.
        var text: [String]
        /// Nothing tells the best from the second.
        var tie = false
    }
    var x: (title: String, names: [String])
    var y: (title: String, names: [String])
    /// Rows from the bottom.
    var cells: [[Cell]]
    var width = 720.0

    func svg(title: String) -> String {
        let left = 110.0, top = 44.0, row = 62.0
        let height = top + row * Double(y.names.count) + 56
        var drawing = SVG(width: width, height: height)
        let bests = Array(Set(cells.joined().compactMap(\.best))).sorted()
        let column = (width - left - 20) / Double(max(x.names.count, 1))
        var at = left
        for name in bests + ["no difference shown", "not measured"] {
            drawing.rectangle(at, 10, 16, 16, fill(name) + " stroke=\"#666\"")
            drawing.label(name, at + 22, 23, size: 12.5)
            at += 44 + 7.2 * Double(name.count)
        }
        for (line, cells) in cells.enumerated() {
            let y = top + row * Double(self.y.names.count - 1 - line)
            for (index, cell) in cells.enumerated() {
                let name = cell.best == nil ? "not measured" : cell.tie ? "no difference shown" : cell.best!
                let x = left + column * Double(index)
                drawing.rectangle(x + 1, y + 1, column - 2, row - 2, fill(name))
                for (number, text) in cell.text.enumerated() {
                    let offset = Double(number) - Double(cell.text.count - 1) / 2
                    drawing.label(
                        text, x + column / 2, y + row / 2 + 4 + offset * 15, .middle, size: 11.5, bold: number == 0)
                }
            }
            drawing.label(self.y.names[line], left - 8, y + row / 2 + 4, .end, size: 12)
        }
        let bottom = top + row * Double(y.names.count)
        for (index, name) in x.names.enumerated() {
            drawing.label(name, left + column * (Double(index) + 0.5), bottom + 18, .middle, size: 12)
        }
        drawing.label(x.title, left + column * Double(x.names.count) / 2, bottom + 42, .middle)
        drawing.label(y.title, 16, (top + bottom) / 2, .middle, turned: true)
        return drawing.text(title: title)
    }

    // Pale, for dark text on them; the name stands in the square as well.
    private func fill(_ name: String) -> String {
        switch name {
        case "MiGrror": "fill=\"#9fd0ef\""
        case "pre-copy": "fill=\"#f6bf94\""
        case "cold": "fill=\"#c9c9c9\""
        case "criu-cold": "fill=\"#e6c2d8\""
        case "no difference shown": "fill=\"#f4f0d8\""
        case "not measured": "fill=\"#ffffff\""
        default: "fill=\"#bfe6d6\""
        }
    }
}

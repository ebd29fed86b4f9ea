// SVG as text: the few elements that charts need, everything escaped.
import LinuxKernel

/// A drawing that grows element by element. Coordinates are pixels from the top left corner.
struct SVG {
    let width: Double
    let height: Double
    private var body = ""

    init(width: Double, height: Double) { (self.width, self.height) = (width, height) }

    /// The whole drawing. It fits the width that it is given, up to its own.
    func text(title: String) -> String {
        """
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(number(width)) \(number(height))" \
        width="\(number(width))" height="\(number(height))" role="img" font-family="system-ui, sans-serif" \
        font-size="13"><title>\(escaped(title))</title><rect width="100%" height="100%" fill="white"/>\(body)</svg>
        """
    }

    mutating func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ style: String) {
        body += "<line x1=\"\(number(x1))\" y1=\"\(number(y1))\" x2=\"\(number(x2))\" y2=\"\(number(y2))\" \(style)/>"
    }

    mutating func path(_ points: [(x: Double, y: Double)], _ style: String) {
        guard !points.isEmpty else { return }
        let steps = points.map { "\(number($0.x)),\(number($0.y))" }.joined(separator: " ")
        body += "<polyline points=\"\(steps)\" fill=\"none\" stroke-linejoin=\"round\" \(style)/>"
    }

    mutating func area(_ points: [(x: Double, y: Double)], _ style: String) {
        let steps = points.map { "\(number($0.x)),\(number($0.y))" }.joined(separator: " ")
        body += "<polygon points=\"\(steps)\" \(style)/>"
    }

    mutating func rectangle(_ x: Double, _ y: Double, _ width: Double, _ height: Double, _ style: String) {
        body +=
            "<rect x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(width))\" height=\"\(number(height))\" \(style)/>"
    }

    enum Anchor: String { case start, middle, end }

    mutating func label(
        _ text: String, _ x: Double, _ y: Double, _ anchor: Anchor = .start, size: Double = 13, fill: String = "#222",
        turned: Bool = false, bold: Bool = false
    ) {
        let turn = turned ? " transform=\"rotate(-90 \(number(x)) \(number(y)))\"" : ""
        body +=
            "<text x=\"\(number(x))\" y=\"\(number(y))\" text-anchor=\"\(anchor.rawValue)\" font-size=\"\(number(size))\" "
        body += "fill=\"\(fill)\"\(bold ? " font-weight=\"600\"" : "")\(turn)>\(escaped(text))</text>"
    }

    /// A marker of a shape that tells series apart without colour.
    mutating func marker(_ look: Look, _ x: Double, _ y: Double, _ radius: Double, opacity: Double = 1) {
        let style =
            "fill=\"\(look.filled ? look.color : "white")\" stroke=\"\(look.color)\" stroke-width=\"1.6\""
            + (opacity < 1 ? " opacity=\"\(number(opacity))\"" : "")
        switch look.shape {
        case .circle: body += "<circle cx=\"\(number(x))\" cy=\"\(number(y))\" r=\"\(number(radius))\" \(style)/>"
        case .square: rectangle(x - radius * 0.9, y - radius * 0.9, radius * 1.8, radius * 1.8, style)
        case .triangle:
            area(
                [(x, y - radius * 1.2), (x + radius * 1.1, y + radius * 0.8), (x - radius * 1.1, y + radius * 0.8)],
                style)
        case .diamond:
            area(
                [(x, y - radius * 1.25), (x + radius * 1.25, y), (x, y + radius * 1.25), (x - radius * 1.25, y)], style)
        }
    }

    mutating func clipped(_ x: Double, _ y: Double, _ width: Double, _ height: Double, _ draw: (inout SVG) -> Void) {
        // A page holds many drawings: names must not repeat in it, and be the same whenever it is written.
        let id = "clip" + String(FNV1a.hash64("\(body) \(x) \(y)".utf8), radix: 16)
        body += "<clipPath id=\"\(id)\"><rect x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(width))\" "
        body += "height=\"\(number(height))\"/></clipPath><g clip-path=\"url(#\(id))\">"
        draw(&self)
        body += "</g>"
    }

    private func number(_ value: Double) -> String {
        let rounded = (value * 100).rounded() / 100
        return rounded == rounded.rounded() ? "\(Int(rounded))" : "\(rounded)"
    }
}

/// Text for XML and HTML.
func escaped(_ text: String) -> String {
    var result = ""
    for character in text {
        switch character {
        case "&": result += "&amp;"
        case "<": result += "&lt;"
        case ">": result += "&gt;"
        case "\"": result += "&quot;"
        default: result.append(character)
        }
    }
    return result
}

/// How a series looks: told apart by colour, by marker and by dash, so that print and colour-blind readers see it too.
struct Look: Hashable {
    enum Shape: Hashable { case circle, square, triangle, diamond }
    var color: String
    var shape: Shape
    var filled = true
    /// As in stroke-dasharray; empty: solid.
    var dash = ""

    // Colours by Okabe and Ito, "Color Universal Design" (2008).
    static let palette = [
        Look(color: "#0072B2", shape: .circle),
        Look(color: "#D55E00", shape: .square, dash: "7 3"),
        Look(color: "#009E73", shape: .triangle, dash: "2 3"),
        Look(color: "#CC79A7", shape: .diamond, dash: "9 3 2 3"),
        Look(color: "#E69F00", shape: .circle, filled: false, dash: "5 5"),
        Look(color: "#56B4E9", shape: .square, filled: false, dash: "1 3"),
        Look(color: "#000000", shape: .triangle, filled: false),
        Look(color: "#999999", shape: .diamond, filled: false, dash: "4 2"),
    ]

    /// A technique's, the same in every figure; others by their order.
    static func of(_ name: String, _ index: Int) -> Look {
        switch name {
        case "MiGrror": palette[0]
        case "pre-copy": palette[1]
        case "cold": palette[6]
        case "post-copy": palette[2]
        case "criu-cold": palette[3]
        case "criu-pre-copy": palette[4]
        case "criu-migrror": palette[5]
        case "no-migration", "no migration": palette[7]
        default: palette[index % palette.count]
        }
    }
}

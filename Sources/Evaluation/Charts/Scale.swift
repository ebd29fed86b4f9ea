// From values to pixels, and which values get a tick.
import Glibc
import Testbed

/// An axis: its name with the unit, and how values lie on it.
struct Axis {
    enum Kind: Hashable {
        case linear, log
        /// Names at equal distances; values are their positions from 0.
        case names([String])
    }
    var title: String
    var kind: Kind = .linear
    /// Shown at least.
    var from: Double?
    var to: Double?

    init(_ title: String, _ kind: Kind = .linear, from: Double? = nil, to: Double? = nil) {
        (self.title, self.kind, self.from, self.to) = (title, kind, from, to)
    }
}

/// An axis with the range of what is shown, on a stretch of pixels.
struct Scale {
    let kind: Axis.Kind
    let low: Double
    let high: Double
    let start: Double
    let end: Double

    /// - Parameter values: all that is shown; a logarithmic axis shows what is 0 or below at its lower end.
    init(_ axis: Axis, _ values: [Double], start: Double, end: Double) {
        (kind, self.start, self.end) = (axis.kind, start, end)
        var values = values + [axis.from, axis.to].compactMap { $0 }
        values = values.filter { $0.isFinite && (axis.kind != .log || $0 > 0) }
        switch axis.kind {
        case .names(let names): (low, high) = (-0.5, Double(max(names.count, 1)) - 0.5)
        case .log:
            let (least, most) = (values.min() ?? 1, values.max() ?? 10)
            // A margin of a twentieth of a decade at least, so that markers are whole.
            let margin = max(pow(most / least, 0.05), 1.15)
            (low, high) = (least / margin, most * margin)
        case .linear:
            let (least, most) = (values.min() ?? 0, values.max() ?? 1)
            let span = most > least ? most - least : max(abs(most), 1)
            low = axis.from ?? (least - span * 0.05)
            high = axis.to.map { max($0, most) } ?? (most + span * 0.07)
        }
    }

    func shows(_ value: Double) -> Bool { value.isFinite }

    /// Whether a value is drawn at the end of the axis, since it has no place of its own.
    func isBelow(_ value: Double) -> Bool { kind == .log && value < low }

    func pixel(_ value: Double) -> Double {
        let share =
            kind == .log
            ? (Glibc.log(max(value, low)) - Glibc.log(low)) / (Glibc.log(high) - Glibc.log(low))
            : (value - low) / (high - low)
        return start + share * (end - start)
    }

    /// Ticks of a horizontal axis by their pixels. A label that would touch the one before is left out; its tick stays.
    var spacedTicks: [(at: Double, label: String?)] {
        var free = -Double.infinity
        return ticks.map { tick in
            let at = pixel(tick.value), half = Double(tick.label.count) * 3.4 + 4
            guard at - half >= free else { return (at, nil) }
            free = at + half
            return (at, tick.label)
        }
    }

    /// Ticks with their labels: on a linear axis 4 to 9 round steps; on a logarithmic one the decades, with 2 and 5
    /// where there are few.
    var ticks: [(value: Double, label: String)] {
        switch kind {
        case .names(let names): return names.enumerated().map { (Double($0), $1) }
        case .linear:
            let raw = (high - low) / 6
            let power = pow(10, floor(log10(raw)))
            let step = [1.0, 2, 2.5, 5, 10].map { $0 * power }.first { $0 >= raw * 0.999 } ?? power
            let first = Int(ceil(low / step - 1e-9)), last = Int(floor(high / step + 1e-9))
            guard last >= first, last - first < 100 else { return [] }
            return (first...last).map { (Double($0) * step, tickText(Double($0) * step)) }
        case .log:
            let decades = Int(floor(log10(low)))...Int(ceil(log10(high)))
            let factors: [Double] =
                log10(high / low) > 4 ? [1] : log10(high / low) > 1.3 ? [1, 2, 5] : [1, 2, 3, 5, 7]
            return decades.flatMap { decade in factors.map { $0 * pow(10, Double(decade)) } }
                .filter { $0 >= low * 0.9999 && $0 <= high * 1.0001 }.map { ($0, tickText($0)) }
        }
    }
}

/// A number with the digits that tell: "0.05", "12.5", "2,000".
func tickText(_ value: Double) -> String {
    if value == 0 { return "0" }
    let size = abs(value)
    if size >= 1000 || value == value.rounded() { return grouped(value) }
    var scale = 1.0
    while scale < 1e6, abs((size * scale).rounded() / scale - size) > size * 1e-6 { scale *= 10 }
    return "\((value * scale).rounded() / scale)"
}

/// A measured value for a reader: three digits that count, commas from a thousand on.
func measured(_ value: Double) -> String {
    guard value.isFinite else { return "–" }
    let size = abs(value)
    if size >= 100 { return grouped(value) }
    let digits = size >= 10 ? 1 : 2
    let scale = digits == 1 ? 10.0 : 100.0
    let rounded = (value * scale).rounded() / scale
    var text = "\(rounded)"
    if let point = text.firstIndex(of: ".") {
        while text.distance(from: point, to: text.endIndex) <= digits { text += "0" }
    }
    return text
}

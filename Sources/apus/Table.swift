// Tables for people: columns as wide as their widest cell, two spaces between.

struct Table {
    enum Alignment { case left, right }
    struct Column {
        let title: String
        let alignment: Alignment
        init(_ title: String, _ alignment: Alignment = .left) {
            self.title = title
            self.alignment = alignment
        }
    }

    let columns: [Column]
    private(set) var rows: [[String]] = []

    init(_ columns: [Column]) { self.columns = columns }

    /// Adds a row; a cell that is empty is shown as "-".
    mutating func add(_ cells: [String]) {
        precondition(cells.count == columns.count)
        rows.append(cells.map { $0.isEmpty ? "-" : $0 })
    }

    /// The lines without spaces at their ends.
    var text: String {
        let lines = [columns.map(\.title)] + rows
        let widths = columns.indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
        return lines.map { cells in
            let padded = zip(zip(cells, columns), widths).map { cell, width in
                let space = String(repeating: " ", count: width - cell.0.count)
                return cell.1.alignment == .left ? cell.0 + space : space + cell.0
            }
            let line = padded.joined(separator: "  ")
            return String(line.reversed().drop { $0 == " " }.reversed())
        }.joined(separator: "\n")
    }
}

/// Numbers for people.
enum Human {
    /// "1.5 MiB".
    static func bytes(_ count: UInt64) -> String {
        if count < 1024 { return "\(count) B" }
        var value = Double(count) / 1024
        var unit = 0
        let units = ["KiB", "MiB", "GiB", "TiB"]
        while value >= 1023.95, unit < 3 {
            value /= 1024
            unit += 1
        }
        return "\(fixed(value, 1)) \(units[unit])"
    }

    /// "950.4 Mbit/s", from bytes a second.
    static func rate(_ bytes: Double) -> String {
        let bits = bytes * 8
        return bits >= 1e9 ? "\(fixed(bits / 1e9, 2)) Gbit/s" : "\(fixed(bits / 1e6, 1)) Mbit/s"
    }

    /// "1.24 ms", "3.5 s"; from milliseconds.
    static func duration(_ milliseconds: Double) -> String {
        milliseconds >= 1000 ? "\(fixed(milliseconds / 1000, 2)) s" : "\(fixed(milliseconds, 2)) ms"
    }

    /// A number with as many digits after the point.
    static func fixed(_ value: Double, _ digits: Int) -> String {
        guard value.isFinite, abs(value) < 1e15 else { return "\(value)" }
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        let scaled = Int64((abs(value) * scale).rounded())
        let whole = scaled / Int64(scale)
        let sign = value < 0 && scaled > 0 ? "-" : ""
        if digits == 0 { return "\(sign)\(whole)" }
        let rest = String(scaled % Int64(scale))
        return "\(sign)\(whole)." + String(repeating: "0", count: digits - rest.count) + rest
    }
}

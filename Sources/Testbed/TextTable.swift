// Tables and numbers for people.

/// Columns as wide as their widest cell.
package struct TextTable {
    package enum Alignment { case left, right }
    package struct Column {
        let titleLines: [String]
        let alignment: Alignment
        /// - Parameter title: may have several lines, the last one next to the rows.
        package init(_ title: String, _ alignment: Alignment = .left) {
            titleLines = title.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
            self.alignment = alignment
        }
    }

    private let columns: [Column]
    private var rows: [[String]] = []

    package init(_ columns: [Column]) { self.columns = columns }

    package mutating func add(_ cells: [String]) {
        precondition(cells.count == columns.count)
        rows.append(cells)
    }

    /// The lines without a rule, a cell that is empty shown as "-".
    package var text: String {
        var table = TextTable(columns)
        table.rows = rows.map { $0.map { $0.isEmpty ? "-" : $0 } }
        return table.lines(indent: "", hasRule: false).joined(separator: "\n")
    }

    /// The lines, without blanks at their ends, each beginning with `indent`.
    ///
    /// - Parameter hasRule: a line between titles and rows.
    package func lines(indent: String = "  ", hasRule: Bool = true) -> [String] {
        let gap = "  ", height = columns.map(\.titleLines.count).max() ?? 0
        let heads = columns.map { Array(repeating: "", count: height - $0.titleLines.count) + $0.titleLines }
        let widths = columns.indices.map { column in
            (heads[column] + rows.map { $0[column] }).map(\.count).max() ?? 0
        }
        func line(_ cells: [String]) -> String {
            let padded = cells.enumerated().map { column, cell in
                cell.padded(widths[column], columns[column].alignment)
            }
            var text = indent + padded.joined(separator: gap)
            while text.last == " " { text.removeLast() }
            return text
        }
        let rule = indent + widths.map { String(repeating: "─", count: $0) }.joined(separator: gap)
        return (0..<height).map { row in line(heads.map { $0[row] }) } + (hasRule ? [rule] : []) + rows.map(line)
    }
}

extension String {
    /// Filled with blanks to a width.
    func padded(_ width: Int, _ alignment: TextTable.Alignment = .left) -> String {
        let blanks = String(repeating: " ", count: max(0, width - count))
        return alignment == .left ? self + blanks : blanks + self
    }
}

/// A number with grouped thousands, and as many digits after the point: "2,251.9".
package func grouped(_ value: Double, digits: Int = 0) -> String {
    guard value.isFinite, abs(value) < 1e15 else { return "–" }
    let text = Human.fixed(value, digits), sign = text.hasPrefix("-") ? "-" : ""
    let parts = text.dropFirst(sign.count).split(separator: ".")
    var groups: [Substring] = [], head = parts[0]
    while head.count > 3 {
        groups.insert(head.suffix(3), at: 0)
        head.removeLast(3)
    }
    return sign + ([head] + groups).joined(separator: ",") + (parts.count > 1 ? ".\(parts[1])" : "")
}

/// Numbers for people, with their units.
package enum Human {
    /// "1.5 MiB".
    package static func bytes(_ count: UInt64) -> String {
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
    package static func rate(_ bytes: Double) -> String {
        let bits = bytes * 8
        return bits >= 1e9 ? "\(fixed(bits / 1e9, 2)) Gbit/s" : "\(fixed(bits / 1e6, 1)) Mbit/s"
    }

    /// "1.24 ms", "3.5 s"; from milliseconds.
    package static func duration(_ milliseconds: Double) -> String {
        milliseconds >= 1000 ? "\(fixed(milliseconds / 1000, 2)) s" : "\(fixed(milliseconds, 2)) ms"
    }

    /// A number with as many digits after the point.
    package static func fixed(_ value: Double, _ digits: Int) -> String {
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

// Tables and numbers for people.

/// Columns that fit their content, headings of any number of lines.
struct TextTable {
    /// Heading lines of a column, the last one next to the rows; `left`: text, otherwise numbers.
    struct Column {
        var heading: [String]
        var left = false
        init(_ heading: String..., left: Bool = false) {
            self.heading = heading
            self.left = left
        }
    }
    let columns: [Column]
    var rows: [[String]] = []
    init(_ columns: [Column]) { self.columns = columns }

    /// The lines, each beginning with `indent`.
    func lines(indent: String = "  ", gap: String = "  ") -> [String] {
        let height = columns.map(\.heading.count).max() ?? 0
        let heads = columns.map { Array(repeating: "", count: height - $0.heading.count) + $0.heading }
        let widths = columns.indices.map { column in
            (heads[column] + rows.map { $0[column] }).map(\.count).max() ?? 0
        }
        func line(_ cells: [String]) -> String {
            var text = indent
            for (column, cell) in cells.enumerated() {
                text += (column == 0 ? "" : gap) + cell.padded(widths[column], left: !columns[column].left)
            }
            while text.last == " " { text.removeLast() }
            return text
        }
        let rule = indent + widths.map { String(repeating: "─", count: $0) }.joined(separator: gap)
        return (0..<height).map { row in line(heads.map { $0[row] }) } + [rule] + rows.map(line)
    }
}

/// A number with grouped thousands: "2,251.9".
func grouped(_ value: Double, digits: Int = 0) -> String {
    guard value.isFinite, abs(value) < 1e15 else { return "–" }
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let whole = Int64((abs(value) * scale).rounded())
    let sign = value < 0 && whole != 0 ? "-" : ""
    var head = String(whole / Int64(scale))
    var groups: [Substring] = []
    while head.count > 3 {
        groups.insert(head.suffix(3), at: 0)
        head.removeLast(3)
    }
    let integer = ([Substring(head)] + groups).joined(separator: ",")
    if digits == 0 { return sign + integer }
    let part = String(whole % Int64(scale))
    return sign + integer + "." + String(repeating: "0", count: digits - part.count) + part
}

// Results as text for other programs.
import FoundationEssentials
import GRDB

extension ResultStore {
    public enum ExportFormat: String, CaseIterable, Sendable { case csv, json }

    /// What can be exported besides the runs with their points.
    public static let tables = [
        "point", "session", "run", "verdict", "phase", "pass", "step", "mirror_age", "latency", "latency_bucket",
        "timeline", "handoff", "mobility_user", "mobility_event",
    ]

    /// Writes a line for each row (CSV by RFC 4180, with a head) or one JSON array.
    ///
    /// - Parameter table: one of `tables`; nil: each run joined with its point and its machine.
    public func export(_ format: ExportFormat, table: String? = nil, line: (String) -> Void) throws {
        let query =
            table.map { "SELECT * FROM \($0)" } ?? """
                SELECT p.*, r.*, s.kernel, s.processor, s.processors, s.runtime FROM run r JOIN point p ON p.id = r.point
                JOIN session s ON s.id = r.session ORDER BY r.id
                """
        try database.read { db in
            let cursor = try Row.fetchCursor(db, sql: query)
            var isFirst = true
            while let row = try cursor.next() {
                // Columns of the same name (the tables' ids) come once, the last one counts.
                var names: [String] = [], values: [String: DatabaseValue] = [:]
                for (name, value) in row where name != "parameters" {
                    if values.updateValue(value, forKey: name) == nil { names.append(name) }
                }
                switch format {
                case .csv:
                    if isFirst { line(names.joined(separator: ",")) }
                    line(names.map { Self.field(values[$0]!) }.joined(separator: ","))
                case .json:
                    let object = names.map { "\(Self.quoted($0)): \(Self.json(values[$0]!))" }
                    line((isFirst ? "[{" : ",{") + object.joined(separator: ", ") + "}")
                }
                isFirst = false
            }
            if format == .json { line(isFirst ? "[]" : "]") }
        }
    }

    private static func field(_ value: DatabaseValue) -> String {
        switch value.storage {
        case .null: return ""
        case .int64(let number): return String(number)
        case .double(let number): return String(number)
        case .string(let text):
            let isPlain = !text.contains { ",\"\r\n".contains($0) }
            return isPlain ? text : "\"\(text.replacing("\"", with: "\"\""))\""
        case .blob: return ""
        }
    }

    private static func json(_ value: DatabaseValue) -> String {
        switch value.storage {
        case .null, .blob: "null"
        case .int64(let number): String(number)
        case .double(let number): number.isFinite ? String(number) : "null"
        case .string(let text): quoted(text)
        }
    }

    private static func quoted(_ text: String) -> String {
        (try? JSONEncoder().encode(text)).map { String(decoding: $0, as: UTF8.self) } ?? "\"\""
    }
}

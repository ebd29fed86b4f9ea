// Traces as CSV: a line of column names, then a line a step.

/// Columns `time`, `x`, `y`, `heading`, `speed` in any order, and `id` where a file has several users; without it the
/// user is called like the file. Empty lines and lines that begin with # say nothing.
enum TraceCSV {
    private static let needed = ["time", "x", "y", "heading", "speed"]

    static func read(_ bytes: [UInt8], file: String, into users: inout TraceUsers) throws {
        var columns: [String]?
        let owner = String(file.split(separator: "/").last?.dropLast(4) ?? "user")
        for (index, line) in bytes.split(separator: 10, omittingEmptySubsequences: false).enumerated() {
            func mistake(_ reason: String) -> InputError { InputError(file: file, line: index + 1, reason: reason) }
            guard let text = String(validating: line, as: UTF8.self) else { throw mistake("this is no text (UTF-8)") }
            let fields = text.split(separator: ",", omittingEmptySubsequences: false).map {
                String($0.drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
            }
            if fields == [""] || fields[0].hasPrefix("#") { continue }
            guard let names = columns else {
                columns = try header(fields, mistake)
                continue
            }
            guard fields.count == names.count else {
                throw mistake("\(fields.count) values stand here, \(names.count) columns above")
            }
            var values: [String: Double] = [:]
            var user = owner
            for (name, field) in zip(names, fields) {
                if name == "id" {
                    guard !field.isEmpty else { throw mistake("id is empty") }
                    user = field
                } else {
                    guard let value = Double(field) else { throw mistake("\(name) \"\(field)\" is not a number") }
                    values[name] = value
                }
            }
            try users.add(
                MobilitySample(
                    time: values["time"]!, x: values["x"]!, y: values["y"]!, heading: values["heading"]!,
                    speed: values["speed"]!), of: user, file: file, line: index + 1)
        }
        if columns == nil { throw InputError(file: file, line: nil, reason: "the file is empty") }
    }

    private static func header(_ names: [String], _ mistake: (String) -> InputError) throws -> [String] {
        for name in needed where !names.contains(name) {
            throw mistake(
                "column \(name) is missing: the first line names time, x, y, heading, speed, and id if need be")
        }
        for name in names {
            guard needed.contains(name) || name == "id" else { throw mistake("column \"\(name)\" is not known") }
            guard names.count(where: { $0 == name }) == 1 else { throw mistake("column \(name) stands here twice") }
        }
        return names
    }
}

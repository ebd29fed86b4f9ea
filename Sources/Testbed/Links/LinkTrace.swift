// How a link changes over time, from a CSV file.
import LinuxKernel

/// Changes of a link at instants.
public struct LinkTrace: Sendable, Hashable, Codable {
    public struct Step: Sendable, Hashable, Codable {
        /// Seconds after the trace's start.
        public var time: Double
        public var forward = LinkChange()
        public var backward = LinkChange()
    }
    public var file: String
    /// In the order of their time, at least one.
    public var steps: [Step]
    /// When a repeated trace starts again: the time of its last step.
    public var length: Double { steps.last?.time ?? 0 }

    /// Reads a trace.
    ///
    /// The first line names the columns: `time` (seconds) and properties of a link, of both directions (`delay`) or of
    /// one (`forward.rate`, `backward.rate`). An empty value changes nothing. Lines that begin with `#`, and empty
    /// ones, are skipped.
    ///
    /// - Throws: `InputError` with the line of the first mistake.
    public init(contentsOf file: String) throws {
        let text: String
        do { text = try SmallFile.text(file) } catch {
            throw InputError(file: file, line: nil, reason: "cannot be read: \(error)")
        }
        try self.init(text, file: file)
    }

    /// Reads a trace from a file's text.
    public init(_ text: String, file: String) throws {
        self.file = file
        steps = []
        var columns: [Column]?
        // "\r\n" is one Character in Swift, so lines are told by `isNewline`.
        for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
            let fields = line.split(separator: ",", omittingEmptySubsequences: false).map(Self.trimmed)
            if fields == [""] || fields[0].hasPrefix("#") { continue }
            func mistake(_ reason: String) -> InputError { InputError(file: file, line: index + 1, reason: reason) }
            guard let known = columns else {
                columns = try fields.map { name in
                    guard let column = Column(name) else {
                        throw mistake("column \"\(name)\": expected time, or \(Column.expected)")
                    }
                    return column
                }
                if Set(columns!).count != fields.count { throw mistake("a column stands twice") }
                if fields.count < 2 || !columns!.contains(.time) {
                    throw mistake("expected a column time and at least one of \(Column.expected)")
                }
                continue
            }
            guard fields.count == known.count else {
                throw mistake("\(fields.count) values where the first line names \(known.count) columns")
            }
            let step = try Self.step(fields, known, mistake)
            if let last = steps.last, step.time <= last.time {
                throw mistake("time \(plain(step.time)) s does not come after \(plain(last.time)) s")
            }
            steps.append(step)
        }
        guard !steps.isEmpty else { throw InputError(file: file, line: nil, reason: "the trace has no steps") }
    }

    private static func step(_ fields: [String], _ columns: [Column], _ mistake: (String) -> InputError) throws -> Step
    {
        var step = Step(time: 0)
        for (text, column) in zip(fields, columns) {
            switch column {
            case .time:
                guard let time = Double(text), (0...1e6).contains(time) else {
                    throw mistake("time \"\(text)\" is not a number of seconds from 0 to 1000000")
                }
                step.time = time
            case .property(let property, let direction):
                if text.isEmpty { continue }
                var fits = true
                if direction != .backward { fits = property.set(text, in: &step.forward) }
                if direction != .forward { fits = property.set(text, in: &step.backward) && fits }
                guard fits else { throw mistake("\(property.rawValue) \"\(text)\" is not \(property.expected)") }
            }
        }
        return step
    }

    private enum Column: Hashable {
        case time
        /// nil: of both directions.
        case property(LinkProperty, LinkDirection?)

        init?(_ name: String) {
            let parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
            if name == "time" {
                self = .time
            } else if parts.count == 1, let property = LinkProperty(rawValue: name) {
                self = .property(property, nil)
            } else if parts.count == 2, let direction = LinkDirection(rawValue: parts[0]),
                let property = LinkProperty(rawValue: parts[1])
            {
                self = .property(property, direction)
            } else {
                return nil
            }
        }
        static let expected =
            LinkChange.names.joined(separator: ", ") + ", with forward. or backward. before it for one direction"
    }

    private static func trimmed(_ text: Substring) -> String {
        let isBlank: (Character) -> Bool = { $0 == " " || $0 == "\t" }
        let start = text.drop(while: isBlank)
        return String(start.reversed().drop(while: isBlank).reversed())
    }
}

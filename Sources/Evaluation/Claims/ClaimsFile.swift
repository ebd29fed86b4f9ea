// The file of claims: a text in Markdown, with a block of YAML behind each claim.
import FoundationEssentials
import GRDB
import LinuxKernel
import Testbed

/// `docs/results/claims.md`, or another file like it.
public struct ClaimsFile {
    /// Blocks begin with this line and end with three backquotes.
    private static let opening = "```claim"

    private let path: String
    private var lines: [String]
    private let claims: [(claim: Claim, lines: Range<Int>)]
    public var count: Int { claims.count }

    public init(_ path: String) throws {
        self.path = path
        lines = try SmallFile.text(path).split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        var found: [(Claim, Range<Int>)] = [], begin: Int?
        for (index, line) in lines.enumerated() {
            if line == Self.opening {
                begin = index + 1
            } else if line == "```", let first = begin {
                let text = lines[first..<index].joined(separator: "\n")
                found.append((try Claim(text, line: first + 1, file: path), first..<index))
                begin = nil
            }
        }
        if let begin { throw InputError(file: path, line: begin, reason: "the block has no end") }
        claims = found.map { (claim: $0.0, lines: $0.1) }
    }

    /// Computes every claim again from the data beside the file.
    ///
    /// - Returns: what the text says that the data do not, each with its line; empty: every claim holds.
    public func check() throws -> [String] {
        try evaluate().flatMap { claim, _, figures in
            claim.mistakes(figures).map { "\(path):\(claim.line): \($0)" }
        }
    }

    /// Writes into the file what the data say.
    public func fill() throws {
        var lines = lines
        for (claim, range, figures) in try evaluate().reversed() {
            if let count = figures.counts.first(where: { $0 < claim.least }) {
                throw InputError(
                    file: path, line: claim.line,
                    reason: "\(count) values, and n is \(claim.least): nothing is filled in")
            }
            func isFigure(_ line: String) -> Bool {
                ["value:", "interval:", "floor:"].contains { line.hasPrefix($0) }
            }
            var block = lines[range].filter { !isFigure($0) }
            block.append("value: \(Self.text(figures.value))")
            if let interval = figures.interval {
                block.append("interval: [\(Self.text(interval.lower)), \(Self.text(interval.upper))]")
            }
            if let floor = figures.floor { block.append("floor: \(Self.text(floor))") }
            lines.replaceSubrange(range, with: block)
        }
        try Data(lines.joined(separator: "\n").utf8).write(to: URL(filePath: path))
    }

    /// Without the grouping of thousands, which YAML takes for text.
    private static func text(_ value: Double) -> String { measured(value).filter { $0 != "," && $0 != "\u{202f}" } }

    private func evaluate() throws -> [(claim: Claim, lines: Range<Int>, figures: ClaimFigures)] {
        let folder = path.folder
        let scratch = FileManager.default.temporaryDirectory.appending(path: "apus-claims-\(UUID())").path
        try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: scratch) }
        var databases: [String: DatabaseQueue] = [:]
        return try claims.map { claim, lines in
            let database = try databases[claim.data] ?? open("\(folder)/\(claim.data)", in: scratch, claim)
            databases[claim.data] = database
            do { return (claim, lines, try claim.figures(database)) } catch let error as DatabaseError {
                throw InputError(file: path, line: claim.line, reason: "the query fails: \(error)")
            }
        }
    }

    private func open(_ file: String, in scratch: String, _ claim: Claim) throws -> DatabaseQueue {
        guard FileManager.default.fileExists(atPath: file) else {
            throw InputError(file: path, line: claim.line, reason: "there are no data \(file)")
        }
        var plain = file
        if file.hasSuffix(".xz") {
            plain = "\(scratch)/\(claim.data.dropLast(3))"
            try Subprocess.run(["sh", "-c", "exec xz --decompress --stdout \"$0\" > \"$1\"", file, plain])
        }
        var configuration = Configuration()
        configuration.readonly = true
        return try DatabaseQueue(path: plain, configuration: configuration)
    }
}

extension String {
    /// Of a path; "." where it names a file alone.
    fileprivate var folder: String { lastIndex(of: "/").map { String(self[..<$0]) } ?? "." }
}

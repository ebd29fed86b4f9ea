// YAML with places: every mistake in a plan or a topology names file, line and what was expected.
import FoundationEssentials
import Glibc
import LinuxKernel
import Yams

/// What is wrong with a file that a user wrote: a plan, a topology, a trace.
public struct InputError: Error, CustomStringConvertible, Equatable {
    public var file: String
    /// From 1; nil: the file as a whole.
    public var line: Int?
    public var reason: String

    public init(file: String, line: Int?, reason: String) {
        (self.file, self.line, self.reason) = (file, line, reason)
    }

    public var description: String { "\(file)\(line.map { ":\($0)" } ?? ""): \(reason)" }
}

/// A node of a YAML file, and the path that leads to it.
package struct YAMLValue {
    package let node: Node
    package let file: String
    /// "experiments[2].vary", empty at the root.
    package let path: String

    /// The root of a file's text, which must be a mapping.
    package static func root(_ text: String, file: String) throws -> YAMLValue {
        do {
            guard let node = try Yams.compose(yaml: text) else {
                throw InputError(file: file, line: nil, reason: "the file is empty")
            }
            return YAMLValue(node: node, file: file, path: "")
        } catch let error as YamlError {
            throw InputError(file: file, line: error.line, reason: "this is no YAML: \(error.reason)")
        }
    }

    package func mistake(_ reason: String) -> InputError {
        InputError(file: file, line: node.mark?.line, reason: (path.isEmpty ? "" : "\(path): ") + reason)
    }

    /// The entries of a mapping in their order. Keys that are none of `known` are mistakes, and so are repeated ones.
    ///
    /// - Parameter known: nil: the keys are names of the user's.
    package func entries(known: [String]? = nil) throws -> [(key: String, value: YAMLValue)] {
        guard let mapping = node.mapping else { throw mistake("expected names with values (name: value)") }
        var seen: Set<String> = []
        return try mapping.map { key, value in
            let inner = YAMLValue(node: key, file: file, path: path)
            guard let name = key.scalar?.string else { throw inner.mistake("a name must be plain text") }
            if let known, !known.contains(name) {
                throw inner.mistake(
                    "\"\(name)\" is not known here"
                        + (known.isEmpty ? "" : "; known: \(known.joined(separator: ", "))"))
            }
            guard seen.insert(name).inserted else { throw inner.mistake("\"\(name)\" stands here twice") }
            return (name, YAMLValue(node: value, file: file, path: path.isEmpty ? name : "\(path).\(name)"))
        }
    }

    /// The items of a sequence, at least one.
    package func items() throws -> [YAMLValue] {
        guard let sequence = node.sequence, !sequence.isEmpty else { throw mistake("expected a list: [a, b]") }
        return sequence.enumerated().map { index, item in
            YAMLValue(node: item, file: file, path: "\(path)[\(index + 1)]")
        }
    }

    package func text() throws -> String {
        guard let scalar = node.scalar, !scalar.string.isEmpty else { throw mistake("expected a text") }
        return scalar.string
    }

    package func number(_ range: ClosedRange<Double>, _ unit: String) throws -> Double {
        let text = try text()
        guard let value = Double(text), range.contains(value) else {
            throw mistake(
                "\"\(text)\" is not a number of \(unit) from \(plain(range.lowerBound)) to \(plain(range.upperBound))")
        }
        return value
    }

    package func integer(_ range: ClosedRange<Int>, _ unit: String) throws -> Int {
        let text = try text()
        guard let value = Int(text), range.contains(value) else {
            throw mistake(
                "\"\(text)\" is not a whole number of \(unit) from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    package func choice<T>(_ names: [String], _ find: (String) -> T?) throws -> T {
        let text = try text()
        guard let value = find(text) else {
            throw mistake("\"\(text)\" is none of \(names.joined(separator: ", "))")
        }
        return value
    }
}

/// A number without digits that say nothing: "5", "0.25".
package func plain(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : String(value)
}

extension YamlError {
    /// Where the parser stumbled, from 1.
    fileprivate var line: Int? {
        switch self {
        case .scanner(_, _, let mark, _), .parser(_, _, let mark, _), .composer(_, _, let mark, _): mark.line
        case .duplicatedKeysInMapping(_, let context): context.mark.line
        default: nil
        }
    }
    fileprivate var reason: String {
        switch self {
        case .scanner(_, let problem, _, _), .parser(_, let problem, _, _), .composer(_, let problem, _, _): problem
        case .duplicatedKeysInMapping(let keys, _): "names stand twice: \(keys.map { "\($0)" }.joined(separator: ", "))"
        default: "\(self)"
        }
    }
}

// What a parameter is made of, and the usual kinds of them.
import Migration
import Testbed

/// Everything that plan, store and report need to know of a parameter.
struct ParameterDefinition {
    /// Its name and unit on an axis.
    var title: String
    /// Its column in the results' table `point`.
    var column: String
    /// Whether its values are numbers.
    var isNumeric = true
    /// What NULL means in that column.
    var absent = "–"
    /// Whether it means something to a run. Where it does not, it has its default, and its column is NULL.
    var applies: (RunParameters) -> Bool = { _ in true }
    /// Whether it is a technique's own: others do not have it.
    var isOfTechnique = false
    /// Its value in the unit of `title`; nil: it is none ("auto", "unlimited", a name).
    var number: (RunParameters) -> Double? = { _ in nil }
    /// As a plan writes it; nil: it is not set.
    var text: (RunParameters) -> String?
    /// Reads a plan's value.
    var read: (YAMLValue, inout RunParameters) throws -> Void
    /// Sets it to its default.
    var reset: (inout RunParameters) -> Void
}

extension ParameterDefinition {
    private static func resetting<Value>(_ path: WritableKeyPath<RunParameters, Value>) -> (inout RunParameters) -> Void
    { { $0[keyPath: path] = RunParameters()[keyPath: path] } }

    /// A whole number of something.
    static func whole(
        _ title: String, _ column: String, _ path: WritableKeyPath<RunParameters, Int>, _ range: ClosedRange<Int>,
        _ unit: String
    ) -> Self {
        Self(
            title: title, column: column, number: { Double($0[keyPath: path]) }, text: { String($0[keyPath: path]) },
            read: { $1[keyPath: path] = try $0.integer(range, unit) }, reset: resetting(path))
    }

    static func number(
        _ title: String, _ column: String, _ path: WritableKeyPath<RunParameters, Double>, _ range: ClosedRange<Double>,
        _ unit: String
    ) -> Self {
        Self(
            title: title, column: column, number: { $0[keyPath: path] }, text: { plain($0[keyPath: path]) },
            read: { $1[keyPath: path] = try $0.number(range, unit) }, reset: resetting(path))
    }

    /// - Parameters:
    ///   - word: a plan's word for nil.
    ///   - absent: a reader's.
    static func number(
        _ title: String, _ column: String, _ path: WritableKeyPath<RunParameters, Double?>, or word: String,
        absent: String, _ range: ClosedRange<Double>, _ unit: String
    ) -> Self {
        Self(
            title: title, column: column, absent: absent, number: { $0[keyPath: path] },
            text: { $0[keyPath: path].map(plain) ?? word },
            read: { $1[keyPath: path] = try $0.text() == word ? nil : $0.number(range, unit) }, reset: resetting(path))
    }

    /// One of several names.
    static func choice<Value: CaseIterable>(
        _ title: String, _ column: String, _ path: WritableKeyPath<RunParameters, Value>,
        name: @escaping (Value) -> String, find: @escaping (String) -> Value?
    ) -> Self {
        Self(
            title: title, column: column, isNumeric: false, text: { name($0[keyPath: path]) },
            read: { $1[keyPath: path] = try $0.choice(Value.allCases.map(name), find) }, reset: resetting(path))
    }

    static func choice<Value: CaseIterable & RawRepresentable>(
        _ title: String, _ column: String, _ path: WritableKeyPath<RunParameters, Value>
    ) -> Self where Value.RawValue == String {
        choice(title, column, path, name: \.rawValue, find: Value.init)
    }

    /// With a condition under which it means something.
    func only(_ applies: @escaping (RunParameters) -> Bool) -> Self {
        var result = self
        result.applies = applies
        return result
    }

    /// A technique's own, which a preset of it decides otherwise, but for some.
    ///
    /// - Parameter byCRIU: the baseline by CRIU heeds it too.
    func only(
        _ copy: CopyPhase, byCRIU: Bool = true, _ evenWithPreset: @escaping (RunParameters) -> Bool = { _ in false }
    ) -> Self {
        var result = self
        result.applies = {
            $0.technique.copy == copy && (byCRIU || !$0.technique.isCRIU) && ($0.isOurs || evenWithPreset($0))
        }
        result.isOfTechnique = true
        return result
    }

    /// A size.
    static func bytes(_ value: YAMLValue, atLeast least: UInt64) throws -> UInt64 {
        guard let count = ByteCount(try value.text()), count.bytes >= least else {
            throw value.mistake(
                "\"\(try value.text())\" is not a size of at least \(ByteCount(least)): 4KiB, 128MiB, 1GiB ...")
        }
        return count.bytes
    }

    /// A size as a plan writes it.
    static func text(_ bytes: UInt64) -> String { "\(ByteCount(bytes))".filter { $0 != " " } }
}

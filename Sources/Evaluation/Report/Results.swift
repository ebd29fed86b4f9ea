// Reads results for a report: each question is one query, and the report shows that very query.
import FoundationEssentials
import Glibc
import GRDB

/// Values that belong together: those of a series at a place of the x axis.
struct Group {
    var series: String
    /// nil: the varied parameter has no number here.
    var x: Double?
    var xText: String
    var values: [Double]

    var sample: Sample { Sample(values) }
    var interval: ConfidenceInterval? { Bootstrap(resamples: 2000).median(of: values) }
}

/// What one query answered.
struct Answer {
    var query: String
    /// In the order in which they came.
    var groups: [Group]
    var series: [String] { groups.map(\.series).uniqued }
    var isEmpty: Bool { groups.isEmpty }
}

struct Results {
    let store: ResultStore
    /// The plan by which the runs were made.
    let plan: EvaluationPlan

    init(_ store: ResultStore) throws {
        self.store = store
        guard let text = try store.database.read({ try String.fetchOne($0, sql: "SELECT plan FROM evaluation") }) else {
            throw ResultError("\(store.path) holds no results; `apus evaluate run PLAN` makes them")
        }
        // Runs of points that the plan has no longer are in no figure. The view stands before the table of its name.
        try store.database.writeWithoutTransaction { db in
            try db.execute(
                sql: """
                    DROP VIEW IF EXISTS temp.run;
                    CREATE TEMP VIEW run AS
                        SELECT * FROM main.run WHERE point IN (SELECT point FROM main.experiment_point)
                    """)
        }
        plan = try EvaluationPlan(text, file: "the plan in \(store.path)")
    }

    func rows(_ query: String) throws -> [Row] { try store.database.read { try Row.fetchAll($0, sql: query) } }

    /// A column of `run` over an experiment's varied parameter, a series for each technique (and each value of the
    /// other varied parameters). Failed runs have no values; they are listed elsewhere.
    func answer(_ experiment: EvaluationPlan.Experiment, _ column: String, where more: String = "") throws -> Answer {
        let x = experiment.varied.first
        let others = experiment.varied.dropFirst().map { parameter -> String in
            let value: String = parameter.isNumeric ? "printf('%g', p.\(parameter.column))" : "p.\(parameter.column)"
            return " || ' · ' || ifnull('\(parameter.short)' || \(value), '\(parameter.absent)')"
        }.joined()
        let query = """
            SELECT p.technique\(others) AS series, \(x.map { "p.\($0.column)" } ?? "p.technique") AS x, \(column) AS y
            FROM run r JOIN point p ON p.id = r.point JOIN experiment_point e ON e.point = p.id
            WHERE e.experiment = '\(experiment.name)' AND r.passed = 1 AND \(column) IS NOT NULL\(more)
            ORDER BY x, p.id, r.repetition, r.move
            """
        var groups: [Group] = []
        for row in try rows(query) {
            let series: String = row["series"]
            let value: DatabaseValue = row["x"]
            let number = Double.fromDatabaseValue(value)
            let text = number.map { tickText(rounded($0)) } ?? String.fromDatabaseValue(value) ?? x?.absent ?? "–"
            if let index = groups.firstIndex(where: { $0.series == series && $0.xText == text }) {
                groups[index].values.append(row["y"])
            } else {
                groups.append(Group(series: series, x: number.map(rounded), xText: text, values: [row["y"]]))
            }
        }
        return Answer(query: query, groups: groups)
    }
}

/// To four digits that count: a rate in whole pages makes 0.099975 of a planned λ of 0.1.
func rounded(_ value: Double) -> Double {
    guard value != 0, value.isFinite else { return value }
    let scale = pow(10, 3 - floor(log10(abs(value))))
    return (value * scale).rounded() / scale
}

extension Array where Element: Hashable {
    /// Each element once, in the order of its first place.
    var uniqued: [Element] {
        var seen: Set<Element> = []
        return filter { seen.insert($0).inserted }
    }
}

extension Parameter {
    /// Its value as a reader calls it: "λ 0.4", "memory 64MiB", "bursts"; nil: it means nothing to the run.
    func words(_ run: RunParameters) -> String? {
        text(run).map { self == .lambda ? "λ \($0)" : isNumeric ? "\(rawValue) \($0)" : $0 }
    }

    /// Before a value in a legend.
    var short: String {
        switch self {
        case .memory: "MiB "
        case .bandwidth: "Mbit/s "
        case .lambda: "λ "
        default: isNumeric ? rawValue + " " : ""
        }
    }
}

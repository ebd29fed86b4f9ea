// The points of a plan as a reader calls them, and what was measured at each.
import GRDB

/// A point and the migrations that passed there.
struct PlaceRuns {
    let parameters: RunParameters
    /// Rows of `run`, and `latency` before, while copying and during as `before_p99` ... `during_p99`.
    var rows: [Row]
    var technique: String { parameters.technique.name }

    /// A column's values; NULL is left out.
    func values(_ column: String) -> [Double] { rows.compactMap { $0[column] } }
    /// Downtime as the client saw it; as the workload saw it where there is no client.
    var seenDowntimes: [Double] { rows.compactMap(Self.seenDowntime) }
    /// The same by the blocks in which they were measured.
    func blocks(_ column: String) -> [[Double]] { byBlock { $0[column] } }
    var seenBlocks: [[Double]] { byBlock(Self.seenDowntime) }
    private func byBlock(_ value: (Row) -> Double?) -> [[Double]] {
        var blocks: [[Double]] = []
        for row in rows {
            let block = row["block"] as Int
            while blocks.count < block { blocks.append([]) }
            if let value = value(row) { blocks[block - 1].append(value) }
        }
        return blocks
    }
    private static func seenDowntime(_ row: Row) -> Double? {
        row["client_downtime_ms"] ?? row["workload_downtime_ms"] ?? row["engine_downtime_ms"]
    }
    var hasClient: Bool { rows.contains { ($0["client_downtime_ms"] as Double?) != nil } }
}

struct Places {
    static let query = """
        SELECT p.key, r.*, b.p50_ms AS before_p50, b.p99_ms AS before_p99, c.run AS has_copying,
            CASE WHEN c.requests > c.unanswered THEN c.p99_ms END AS copying_p99,
            d.p50_ms AS during_p50, d.p99_ms AS during_p99
        FROM run r JOIN point p ON p.id = r.point
        LEFT JOIN latency b ON b.run = r.id AND b.stretch = 'before'
        LEFT JOIN latency c ON c.run = r.id AND c.stretch = 'copying'
        LEFT JOIN latency d ON d.run = r.id AND d.stretch = 'during'
        WHERE r.passed = 1 ORDER BY p.id, r.repetition, r.move
        """

    /// Where something was measured, in the plan's order.
    let all: [PlaceRuns]
    private let experiments: [EvaluationPlan.Experiment]
    private let places: [RunParameters: PlaceRuns]
    private let usual: [Parameter: String]

    init(_ results: Results) throws {
        let points = results.plan.points.map(\.parameters)
        var counts: [Parameter: [String: Int]] = [:]
        for point in points {
            for parameter in Parameter.allCases {
                if let text = parameter.text(point) { counts[parameter, default: [:]][text, default: 0] += 1 }
            }
        }
        usual = counts.mapValues { $0.max { ($0.value, $1.key) < ($1.value, $0.key) }!.key }
        var rows: [String: [Row]] = [:]
        for row in try results.rows(Self.query) { rows[row["key"], default: []].append(row) }
        all = points.compactMap { point in rows[point.key].map { PlaceRuns(parameters: point, rows: $0) } }
        experiments = results.plan.experiments
        places = Dictionary(all.map { ($0.parameters, $0) }) { first, _ in first }
    }

    /// Whether all runs have the latency until the freeze by itself: those of older versions have it with the freeze.
    var hasCopyingLatency: Bool {
        all.allSatisfy { place in
            place.rows.allSatisfy { ($0["has_copying"] as Int?) != nil || ($0["during_p99"] as Double?) == nil }
        }
    }

    /// What was measured at a point; nil: nothing.
    func at(_ point: RunParameters) -> PlaceRuns? { places[point] }

    /// Whether the technique's own parameters are the plan's usual ones.
    func isPlain(_ run: RunParameters) -> Bool {
        Parameter.allCases.allSatisfy { parameter in
            !parameter.definition.isOfTechnique || parameter.text(run).map { $0 == usual[parameter] } ?? true
        }
    }

    /// What two points share at which techniques are compared: everything but the technique and its own parameters.
    ///
    /// - Parameter without: what may differ as well.
    func conditions(_ run: RunParameters, without: [Parameter] = []) -> String {
        Parameter.allCases.filter { $0 != .technique && !$0.definition.isOfTechnique && !without.contains($0) }
            .compactMap { parameter in parameter.text(run).map { "\(parameter.rawValue)=\($0)" } }.joined(
                separator: " ")
    }

    /// The workload, and whatever is not as at most points: "redis, memory 256MiB".
    func name(_ run: RunParameters, without: [Parameter] = []) -> String {
        let unusual = Parameter.allCases.filter {
            ![.technique, .workload].contains($0) && !without.contains($0)
        }.compactMap { parameter -> String? in
            parameter.text(run) == usual[parameter] ? nil : parameter.words(run)
        }
        return ([run.workload.rawValue] + unusual).joined(separator: ", ")
    }

    /// Two techniques in one experiment, where all that it varies is equal.
    struct Pair {
        var experiment: EvaluationPlan.Experiment
        var first: PlaceRuns
        var second: PlaceRuns
        /// The same measurement with no migration; nil: the experiment has none.
        var control: PlaceRuns?
    }

    /// Every place at which both were measured, once, in the plan's order.
    func pairs(_ first: EvaluatedTechnique, _ second: EvaluatedTechnique) -> [Pair] {
        var seen: Set<[RunParameters]> = []
        return experiments.flatMap { experiment -> [Pair] in
            let mine = experiment.points.compactMap { places[$0] }
            func like(_ one: PlaceRuns, _ technique: EvaluatedTechnique) -> PlaceRuns? {
                mine.first { other in
                    // Whatever means something to both is equal; of a technique's own only what is varied counts.
                    other.parameters.technique == technique
                        && Parameter.allCases.allSatisfy { parameter in
                            let isOwn = parameter.definition.isOfTechnique && !experiment.varied.contains(parameter)
                            let (a, b) = (parameter.text(one.parameters), parameter.text(other.parameters))
                            return parameter == .technique || isOwn || a == nil || b == nil || a == b
                        }
                }
            }
            return mine.filter { $0.parameters.technique == first }.compactMap { one in
                guard let other = like(one, second), seen.insert([one.parameters, other.parameters]).inserted else {
                    return nil
                }
                return Pair(experiment: experiment, first: one, second: other, control: like(one, .control))
            }
        }
    }

    /// A pair's place as a reader calls it: its experiment's title, and the values of what that varies.
    func name(_ pair: Pair) -> String {
        let values = pair.experiment.varied.compactMap { parameter in
            parameter.words(pair.first.parameters)
        }
        return ([pair.experiment.title] + values).joined(separator: ", ")
    }

    /// Places that differ in some parameters only, in the plan's order.
    func groups(by parameters: [Parameter], of places: [PlaceRuns]) -> [[PlaceRuns]] {
        func rest(_ place: PlaceRuns) -> String {
            Parameter.allCases.filter { !parameters.contains($0) }
                .compactMap { parameter in parameter.text(place.parameters).map { "\(parameter.rawValue)=\($0)" } }
                .joined(separator: " ")
        }
        let names = places.map(rest).uniqued
        return names.map { name in places.filter { rest($0) == name } }
    }
}

/// A median with its interval: "3.21 [3.02, 3.40]".
func medianText(_ values: [Double]) -> String {
    guard !values.isEmpty else { return "–" }
    let interval = Bootstrap(resamples: 2000).median(of: values)
    return measured(Sample(values).median)
        + (interval.map { " [\(measured($0.lower)), \(measured($0.upper))]" } ?? "")
}

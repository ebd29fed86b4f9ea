// What the results' text claims, as figures that anybody can compute again from the committed data.
import FoundationEssentials
import GRDB
import Testbed

/// One claim: a statistic of the values that a query finds, and what the text says it is.
///
/// A query selects `block` and a value, a row a run.
struct Claim {
    enum Statistic: String, CaseIterable {
        case median, p95, worst
        /// Percent of the values that are below `limit`.
        case shareBelow = "share-below"
        /// Of the medians, first over second and first less second.
        case ratio, difference

        var isOfTwo: Bool { self == .ratio || self == .difference }
    }

    /// The first line of its block, from 1.
    var line: Int
    /// A file of results in the folder of the claims, SQLite or SQLite in xz.
    var data = ""
    var statistic = Statistic.median
    var limit: Double?
    /// The fewest values that either query may find.
    var least = 0
    var first = ""
    var second: String?
    /// Of the same measurement without a migration: its median is the noise.
    var control: String?
    /// As the text has them; nil: nothing is said yet.
    var value: String?
    var interval: [String]?
    var floor: String?
}

/// A claim's figures, computed.
struct ClaimFigures {
    var counts: [Int]
    var value: Double
    /// 95 %; nil where there is none, as of a worst value.
    var interval: ConfidenceInterval?
    /// The control's median.
    var floor: Double?
}

extension Claim {
    private static let keys = [
        "data", "statistic", "limit", "n", "first", "second", "control", "value", "interval", "floor",
    ]

    /// - Parameters:
    ///   - text: the block's YAML.
    ///   - line: where it begins in the file.
    init(_ text: String, line: Int, file: String) throws {
        self.line = line
        // So that mistakes are told with the line of the file.
        let root = try YAMLValue.root(String(repeating: "\n", count: line - 1) + text, file: file)
        for (key, entry) in try root.entries(known: Self.keys) {
            switch key {
            case "data": data = try entry.text()
            case "statistic": statistic = try entry.choice(Statistic.allCases.map(\.rawValue), Statistic.init)
            case "limit": limit = try entry.number(0...1e9, "the values' unit")
            case "n": least = try entry.integer(1...1_000_000, "values")
            case "first": first = try entry.text()
            case "second": second = try entry.text()
            case "control": control = try entry.text()
            case "value": value = try entry.text()
            case "interval": interval = try entry.items().map { try $0.text() }
            default: floor = try entry.text()
            }
        }
        if data.isEmpty || first.isEmpty || least == 0 { throw root.mistake("a claim has data, n and first") }
        if data.contains("/") { throw root.mistake("data: a file beside the claims") }
        if statistic.isOfTwo != (second != nil) {
            throw root.mistake("\(statistic.rawValue) \(statistic.isOfTwo ? "compares with second" : "has no second")")
        }
        if (statistic == .shareBelow) != (limit != nil) { throw root.mistake("limit belongs to share-below") }
        if let interval, interval.count != 2 { throw root.mistake("interval: two numbers") }
    }

    /// Computes it from a database.
    func figures(_ database: DatabaseQueue) throws -> ClaimFigures {
        let (one, two) = (try blocks(first, database), try second.map { try blocks($0, database) })
        let (values, others) = (one.flatMap(\.self), two?.flatMap(\.self) ?? [])
        let bootstrap = Bootstrap(resamples: 2000)
        var figures = ClaimFigures(
            counts: [values.count] + (second == nil ? [] : [others.count]), value: .nan)
        figures.floor = try control.map { Sample(try blocks($0, database).flatMap(\.self)).median }
        func alone(_ statistic: ([Double]) -> Double) {
            figures.value = statistic(values)
            figures.interval = bootstrap.interval(blocks: one, one) { sample, _ in statistic(sample) }
        }
        switch statistic {
        case .median: alone { Sample($0).median }
        case .p95: alone { Sample($0).quantile(0.95) }
        case .worst: figures.value = Sample(values).max
        case .shareBelow:
            figures.value = values.isEmpty ? .nan : 100 * Double(values.count { $0 < limit! }) / Double(values.count)
        case .ratio, .difference:
            let comparison = Comparison(one, two!)
            (figures.value, figures.interval) =
                statistic == .ratio
                ? (comparison.ratio, comparison.ratioInterval) : (comparison.difference, comparison.interval)
        }
        return figures
    }

    /// The values of each block, those of equal blocks at equal places.
    private func blocks(_ query: String, _ database: DatabaseQueue) throws -> [[Double]] {
        let rows = try database.read { db in
            try Row.fetchAll(db, sql: query).map { (block: $0[0] as Int, value: $0[1] as Double?) }
        }
        var found = [[Double]](repeating: [], count: rows.map(\.block).max() ?? 0)
        for row in rows where row.block > 0 { if let value = row.value { found[row.block - 1].append(value) } }
        return found
    }

    /// What the text says that the data do not; empty: it is right.
    func mistakes(_ figures: ClaimFigures) -> [String] {
        var found: [String] = []
        for count in figures.counts where count < least { found.append("\(count) values, and n is \(least)") }
        func compare(_ what: String, _ stated: String?, _ computed: Double?) {
            guard let computed, computed.isFinite else {
                if let stated { found.append("\(what) is \(stated), and the data have none") }
                return
            }
            guard let stated else { return found.append("\(what) is not stated; the data say \(measured(computed))") }
            if !Self.rounds(computed, to: stated) {
                found.append("\(what) is \(stated), and the data say \(measured(computed))")
            }
        }
        compare("value", value, figures.value)
        compare("the interval's lower end", interval?[0], figures.interval?.lower)
        compare("the interval's upper end", interval?[1], figures.interval?.upper)
        compare("floor", floor, figures.floor)
        return found
    }

    /// Is a stated number the computed one, to the digits that it has?
    static func rounds(_ value: Double, to stated: String) -> Bool {
        guard let number = Double(stated.filter { $0 != "," }) else { return false }
        let digits = stated.firstIndex(of: ".").map { stated.distance(from: $0, to: stated.endIndex) - 1 } ?? 0
        var unit = 1.0
        for _ in 0..<digits { unit /= 10 }
        return abs(value - number) <= unit / 2 * (1 + 1e-9)
    }
}

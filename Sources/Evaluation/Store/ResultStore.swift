// Results in SQLite: one row a migration, written in one transaction when it has ended.
import FoundationEssentials
import GRDB

/// Something about a store of results that cannot be.
public struct ResultError: Error, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

public final class ResultStore: Sendable {
    let database: DatabaseQueue
    public let path: String

    /// Opens a store; makes it if it is not there and `create` says so.
    public init(_ path: String, create: Bool = false) throws {
        self.path = path
        var configuration = Configuration()
        configuration.foreignKeysEnabled = true
        if !create && !FileManager.default.fileExists(atPath: path) {
            throw ResultError("\(path): there are no results; `apus evaluate run PLAN` makes them")
        }
        do {
            database = try DatabaseQueue(path: path, configuration: configuration)
            try Schema.prepare(database)
        } catch { throw ResultError("\(path) cannot be used for results: \(error)") }
    }

    /// Notes a plan and its points. A store belongs to one plan; more repetitions, points and experiments may join it.
    func register(_ plan: EvaluationPlan) throws {
        try database.write { db in
            if let name = try String.fetchOne(db, sql: "SELECT name FROM evaluation"), name != plan.name {
                throw ResultError("\(path) holds the results of plan \"\(name)\", not of \"\(plan.name)\"")
            }
            try db.execute(sql: "DELETE FROM evaluation")
            try db.execute(
                sql: "INSERT INTO evaluation (name, title, seed, plan) VALUES (?, ?, ?, ?)",
                arguments: [plan.name, plan.title, Int64(bitPattern: plan.seed), plan.source])
            for (point, _) in plan.points { try insert(point, db) }
            try db.execute(sql: "DELETE FROM experiment_point")
            for experiment in plan.experiments {
                for point in experiment.points {
                    try db.execute(
                        sql: """
                            INSERT INTO experiment_point (experiment, point) SELECT ?, id FROM point WHERE key = ?
                            """, arguments: [experiment.name, point.key])
                }
            }
        }
    }

    private func insert(_ point: RunParameters, _ db: Database) throws {
        var row = RowValues("point")
        row["key"] = point.key
        for parameter in Parameter.allCases {
            row[parameter.column] = parameter.isNumeric ? parameter.number(point) : parameter.text(point)
        }
        try row.insert(db, orIgnore: true)
    }

    /// The names of the planned runs that have been made.
    ///
    /// - Parameter passed: only of those whose last attempt has passed.
    func made(passed: Bool) throws -> Set<String> {
        try database.read { db in
            Set(
                try String.fetchAll(
                    db,
                    sql: """
                        SELECT key || ' #' || repetition FROM (\(Self.lastAttempts)) a JOIN point ON point.id = a.point
                            WHERE passed OR NOT ?
                        """, arguments: [passed]))
        }
    }

    /// Each run's last attempt, and whether all of its migrations passed.
    private static let lastAttempts = """
        SELECT point, repetition, max(attempt) AS attempt, min(passed) AS passed FROM run r
            WHERE attempt = (SELECT max(attempt) FROM run WHERE point = r.point AND repetition = r.repetition)
            GROUP BY point, repetition
        """

    /// Seconds since the last run of a block began; nil: there is none.
    func secondsSince(block: Int) throws -> Double? {
        try database.read {
            try Double.fetchOne(
                $0, sql: "SELECT (julianday('now') - julianday(max(started_at))) * 86400 FROM run WHERE block = ?",
                arguments: [block])
        }
    }

    func beginSession(_ session: SessionRecord) throws -> Int64 { try database.write(session.insert) }

    func add(_ run: RunRecord, session: Int64) throws {
        try database.write { db in try run.insert(db, session: session) }
    }

    /// Runs of the plan that were made, and those of them of which a migration failed. Runs of points that it has no
    /// longer do not count.
    public func counts() throws -> (made: Int, failed: Int) {
        try database.read { db in
            func count(_ condition: String) throws -> Int {
                try Int.fetchOne(
                    db,
                    sql: """
                        SELECT count(*) FROM (\(Self.lastAttempts))
                            WHERE point IN (SELECT point FROM experiment_point) AND \(condition)
                        """)
                    ?? 0
            }
            return (try count("1"), try count("passed = 0"))
        }
    }
}

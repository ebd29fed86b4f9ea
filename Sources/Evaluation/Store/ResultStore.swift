// Results in SQLite: one row a migration, written in one transaction when it has ended.
import FoundationEssentials
import GRDB
import Migration
import Testbed

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
            try Schema.migrator.migrate(database)
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
        try db.execute(
            sql: """
                INSERT OR IGNORE INTO point (key, technique, workload, memory_mib, bandwidth_mbit, lambda, dirty_mib_s,
                    working_set_percent, share_percent, handover, trigger_after_s, events, event_pages, min_spacing_ms,
                    max_rounds, round_interval_ms, downtime_limit_ms, parameters)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
            arguments: [
                point.key, point.technique.rawValue, point.workload.rawValue, Parameter.memory.number(point),
                Parameter.bandwidth.number(point), point.lambda ?? point.effectiveLambda,
                point.workload == .dirtier ? Parameter.dirtyRate.number(point) : nil,
                point.workload == .dirtier ? Double(point.workingSet) : nil,
                point.workload == .dirtier ? Double(point.share) : nil, point.handover.rawValue,
                point.handover == .atTrigger ? point.triggerAfter : nil, point.events.rawValue, point.eventPages,
                point.minSpacing, point.maxRounds, point.roundInterval, point.downtimeLimit,
                String(decoding: try JSONEncoder().encode(point), as: UTF8.self),
            ])
    }

    /// The runs that have been made, failed ones too.
    func made() throws -> Set<PlannedRun> {
        try database.read { db in
            let rows = try Row.fetchAll(
                db, sql: "SELECT parameters, repetition FROM run JOIN point ON point.id = run.point")
            return Set(
                try rows.map { row in
                    PlannedRun(
                        parameters: try JSONDecoder().decode(
                            RunParameters.self, from: Data((row["parameters"] as String).utf8)),
                        repetition: row["repetition"])
                })
        }
    }

    /// Forgets the runs that failed, so that they are made again.
    func forgetFailed() throws -> Int {
        try database.write { db in
            try db.execute(sql: "DELETE FROM run WHERE passed = 0")
            return db.changesCount
        }
    }

    func beginSession(_ session: SessionRecord) throws -> Int64 {
        try database.write { db in
            try db.execute(
                sql: """
                    INSERT INTO session (started_at, kernel, processor, processors, memory, runtime, load)
                    VALUES (?, ?, ?, ?, ?, ?, ?)
                    """,
                arguments: [
                    session.startedAt, session.machine.kernel, session.machine.processor, session.machine.processors,
                    Int64(session.machine.memory), session.runtime, session.load,
                ])
            return db.lastInsertedRowID
        }
    }

    func add(_ run: RunRecord, session: Int64) throws {
        try database.write { db in try run.insert(db, session: session) }
    }

    public func counts() throws -> (made: Int, failed: Int) {
        try database.read { db in
            (
                try Int.fetchOne(db, sql: "SELECT count(*) FROM run") ?? 0,
                try Int.fetchOne(db, sql: "SELECT count(*) FROM run WHERE passed = 0") ?? 0
            )
        }
    }
}

/// One start of an evaluation.
struct SessionRecord {
    var startedAt: String
    var machine: Machine
    var runtime: String
    var load: String
}

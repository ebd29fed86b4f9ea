// A run as it goes into the store.
import GRDB
import Migration
import Testbed

/// What came of a planned run.
struct RunRecord {
    var planned: PlannedRun
    /// ISO 8601, UTC.
    var startedAt: String
    /// nil: the migration failed.
    var report: MigrationReport?
    var observation: Observation?
    /// Empty: it could not be judged.
    var verdicts: [Verdict] = []
    /// Why the migration failed, or could not be judged.
    var error: String?

    var passed: Bool {
        error == nil && report != nil && !verdicts.isEmpty && verdicts.allSatisfy(\.passed)
    }

    /// The error, or what verdict is wrong.
    var problem: String? {
        error ?? verdicts.first { !$0.passed }.map { "\($0.name): \($0.detail)" }
    }

    func insert(_ db: Database, session: Int64) throws {
        let point = try Int64.fetchOne(
            db, sql: "SELECT id FROM point WHERE key = ?", arguments: [planned.parameters.key])
        try db.execute(
            sql: """
                INSERT INTO run (session, point, repetition, started_at, passed, error, engine_downtime_ms,
                    workload_downtime_ms, client_downtime_ms, disturbance_ms, migration_time_ms, handover_ms, in_sync_ms, passes,
                    pages_sent, bytes_sent, state_bytes, overhead, last_pass_pages, events)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
            arguments: [
                session, point, planned.repetition, startedAt, passed, problem, report?.engineDowntime,
                observation?.workloadDowntime, observation?.clientDowntime, observation?.disturbance,
                report?.migrationTime, report?.handoverTime, report?.inSyncAt, report?.passes.count,
                report.map { Int64($0.pagesSent) },
                report.map { Int64($0.bytesSent) }, report.map { Int64($0.stateBytes) }, report?.overhead,
                report?.passes.last.map { Int64($0.pages) }, report?.events,
            ])
        let run = db.lastInsertedRowID
        try insert(
            db, "verdict (run, name, passed, detail)",
            verdicts.map {
                [run, $0.name, $0.passed, $0.detail]
            })
        try insert(
            db, "latency (run, stretch, requests, unanswered, p50_ms, p95_ms, p99_ms, p999_ms, slowest_ms)",
            (observation?.latency ?? []).map {
                [run, $0.stretch, $0.requests, $0.unanswered, $0.p50, $0.p95, $0.p99, $0.p999, $0.slowest]
            })
        if planned.repetition == 1 {
            try insert(
                db, "timeline (run, at_ms, latency_ms)",
                (observation?.timeline ?? []).map {
                    [run, $0.at, $0.latency]
                })
        }
        guard let report else { return }
        try insert(
            db, "phase (run, ordinal, name, duration_ms)",
            report.phases.enumerated().map {
                [run, $0 + 1, $1.name, $1.duration]
            })
        try insert(
            db, "pass (run, ordinal, start_ms, duration_ms, pages, bytes)",
            report.passes.enumerated().map {
                [run, $0 + 1, $1.start, $1.duration, Int64($1.pages), Int64($1.bytes)]
            })
        try insert(
            db, "step (run, side, name, start_us, duration_us)",
            report.steps.map {
                [run, $0.side, $0.name, $0.start, $0.duration]
            })
        try insert(db, "mirror_age (run, at_ms, age_ms)", report.mirrorAge.map { [run, $0.at, $0.age] })
    }

    /// Rows into "table (column, ...)".
    private func insert(_ db: Database, _ target: String, _ rows: [[(any DatabaseValueConvertible)?]]) throws {
        guard let first = rows.first else { return }
        let marks = first.map { _ in "?" }.joined(separator: ", ")
        let statement = try db.cachedStatement(sql: "INSERT INTO \(target) VALUES (\(marks))")
        for row in rows { try statement.execute(arguments: StatementArguments(row)) }
    }
}

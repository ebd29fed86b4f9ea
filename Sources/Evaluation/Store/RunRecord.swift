// A run as it goes into the store: each of its migrations a row.
import FoundationEssentials
import GRDB
import Migration
import Testbed

/// One migration of a run, made or tried.
struct MoveRecord {
    var container: String
    var source: String
    var destination: String
    /// ISO 8601, UTC.
    var startedAt = Date().ISO8601Format()
    /// nil: the migration failed.
    var report: MigrationReport?
    var observation: Observation?
    /// Downtime and what the user's device needed to reach the new host, milliseconds; nil: no device moved.
    var interruption: Double?
    /// Why the migration failed.
    var error: String?
    /// CPU time of the agents, seconds.
    var sourceCPU: Double?
    var destinationCPU: Double?

    init(_ container: String, from source: String, to destination: String) {
        (self.container, self.source, self.destination) = (container, source, destination)
    }
}

/// What came of a planned run.
struct RunRecord {
    var planned: PlannedRun
    /// In the order in which they were decided.
    var moves: [MoveRecord] = []
    /// Users who moved; their services may do without migrations.
    var mobility: MobilityOutcome?
    /// What must hold at the run's end, and counts for each of its migrations. Empty: it could not be judged.
    var verdicts: [Verdict] = []
    /// Why the run as a whole failed, or could not be judged.
    var error: String?

    init(_ planned: PlannedRun) { self.planned = planned }

    var passed: Bool { rows.allSatisfy(passed) }
    private func passed(_ move: MoveRecord) -> Bool {
        let isMade = move.report != nil || move.container.isEmpty && mobility != nil
        return error == nil && move.error == nil && isMade && !verdicts.isEmpty && verdicts.allSatisfy(\.passed)
    }
    /// A run without a migration is one row too, so that it counts: of a run that failed before its first one, or whose
    /// services stayed.
    private var rows: [MoveRecord] { moves.isEmpty ? [MoveRecord("", from: "", to: "")] : moves }

    /// The first error, or what verdict is wrong.
    var problem: String? { error ?? rows.lazy.compactMap { problem($0) }.first }
    private func problem(_ move: MoveRecord) -> String? {
        error ?? move.error ?? verdicts.first { !$0.passed }.map { "\($0.name): \($0.detail)" }
    }

    func insert(_ db: Database, session: Int64) throws {
        let point = try Int64.fetchOne(
            db, sql: "SELECT id FROM point WHERE key = ?", arguments: [planned.parameters.key])
        let attempt =
            1
            + (try Int.fetchOne(
                db, sql: "SELECT max(attempt) FROM run WHERE point = ? AND repetition = ?",
                arguments: [point, planned.repetition]) ?? 0)
        // Of several attempts the last one counts.
        try db.execute(
            sql: """
                UPDATE run SET passed = 0, error = coalesce(error, 'another migration of this run failed')
                    WHERE point = ? AND repetition = ?
                """, arguments: [point, planned.repetition])
        var ids: [Int64] = []
        for (index, move) in rows.enumerated() {
            let (report, seen) = (move.report, move.observation)
            var row = RowValues("run")
            row["session"] = session
            row["point"] = point
            row["repetition"] = planned.repetition
            row["block"] = planned.block
            row["attempt"] = attempt
            row["move"] = index + 1
            row["container"] = move.container
            row["source"] = move.source
            row["destination"] = move.destination
            row["started_at"] = move.startedAt
            row["passed"] = passed(move)
            row["error"] = problem(move)
            row["engine_downtime_ms"] = report?.engineDowntime
            row["workload_downtime_ms"] = seen?.workloadDowntime
            row["client_downtime_ms"] = seen?.clientDowntime
            row["interruption_ms"] = move.interruption
            row["disturbance_ms"] = seen?.disturbance
            row["migration_time_ms"] = report?.migrationTime
            row["handover_ms"] = report?.handoverTime
            row["dirty_pages_s"] = seen?.dirtyRate
            row["goodput_b_s"] = report?.passes.first.flatMap {
                $0.duration > 0 ? Double($0.bytes) / ($0.duration / 1000) : nil
            }
            let load = report?.loadAtHandover.flatMap { after in
                report?.loadAtDecision.flatMap { after.perSecond(since: $0) }
            }
            (row["ran_ms_s"], row["waited_ms_s"], row["faults_s"]) = (load?.ran, load?.waited, load?.faults)
            row["preparation_ms"] = report?.preparation
            row["ready_ms"] = report?.readyAt
            row["passes"] = report?.passes.count
            row["pages_sent"] = report.map { Int64($0.pagesSent) }
            row["bytes_sent"] = report.map { Int64($0.bytesSent) }
            row["state_bytes"] = report.map { Int64($0.stateBytes) }
            row["overhead"] = report?.overhead
            row["last_pass_pages"] = report?.passes.last.map { Int64($0.pages) }
            row["events"] = report?.events
            row["source_cpu_s"] = move.sourceCPU
            row["destination_cpu_s"] = move.destinationCPU
            try row.insert(db)
            ids.append(db.lastInsertedRowID)
            try insertDetails(of: move, run: db.lastInsertedRowID, db)
        }
        try mobility?.insert(db, run: ids[0], migrations: ids)
    }

    private func insertDetails(of move: MoveRecord, run: Int64, _ db: Database) throws {
        func insert(_ target: String, _ rows: [[(any DatabaseValueConvertible)?]]) throws {
            try Self.insert(db, target, run, rows)
        }
        try insert("verdict (run, name, passed, detail)", verdicts.map { [$0.name, $0.passed, $0.detail] })
        try insert(
            "latency (run, stretch, requests, unanswered, late, duplicated, p50_ms, p95_ms, p99_ms, p999_ms, slowest_ms)",
            (move.observation?.latency ?? []).map {
                [
                    $0.stretch, $0.requests, $0.unanswered, $0.late, $0.duplicated, $0.p50, $0.p95, $0.p99, $0.p999,
                    $0.slowest,
                ]
            })
        try insert(
            "latency_bucket (run, stretch, latency_ms, count)",
            (move.observation?.latency ?? []).flatMap { latency in
                latency.buckets.map { [latency.stretch, $0.latency, $0.count] }
            })
        if planned.repetition == 1 {
            try insert(
                "timeline (run, at_ms, latency_ms)", (move.observation?.timeline ?? []).map { [$0.at, $0.latency] })
        }
        guard let report = move.report else { return }
        try insert(
            "phase (run, ordinal, name, duration_ms)",
            report.phases.enumerated().map { [$0 + 1, $1.name, $1.duration] })
        try insert(
            "pass (run, ordinal, start_ms, duration_ms, pages, bytes)",
            report.passes.enumerated().map { [$0 + 1, $1.start, $1.duration, Int64($1.pages), Int64($1.bytes)] })
        try insert(
            "step (run, side, name, start_us, duration_us)",
            report.steps.map { [$0.side, $0.name, $0.start, $0.duration] })
        try insert("mirror_age (run, at_ms, age_ms)", report.mirrorAge.map { [$0.at, $0.age] })
    }

    /// Rows into "table (run, column, ...)".
    private static func insert(
        _ db: Database, _ target: String, _ run: Int64, _ rows: [[(any DatabaseValueConvertible)?]]
    ) throws {
        guard let first = rows.first else { return }
        let marks = Array(repeating: "?", count: first.count + 1).joined(separator: ", ")
        let statement = try db.cachedStatement(sql: "INSERT INTO \(target) VALUES (\(marks))")
        for row in rows { try statement.execute(arguments: StatementArguments([run] + row)) }
    }
}

/// A row to be inserted, by its columns' names.
struct RowValues {
    let table: String
    private var columns: [(name: String, value: (any DatabaseValueConvertible)?)] = []
    init(_ table: String) { self.table = table }

    subscript(name: String) -> (any DatabaseValueConvertible)? {
        get { columns.first { $0.name == name }?.value }
        set { columns.append((name, newValue)) }
    }

    /// - Parameter orIgnore: a row that is there stays as it is.
    func insert(_ db: Database, orIgnore: Bool = false) throws {
        let marks = columns.map { _ in "?" }.joined(separator: ", ")
        let statement = try db.cachedStatement(
            sql: "INSERT \(orIgnore ? "OR IGNORE " : "")INTO \(table) "
                + "(\(columns.map(\.name).joined(separator: ", "))) VALUES (\(marks))")
        try statement.execute(arguments: StatementArguments(columns.map(\.value)))
    }
}

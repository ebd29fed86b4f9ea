// The store of results: what goes in comes out, by row and by column.
import Foundation
import GRDB
import Migration
import Testbed
import Testing

@testable import Evaluation

struct StoreTests {
    private static func plan(_ experiment: String) throws -> EvaluationPlan {
        try EvaluationPlan("name: x\nrepetitions: 2\nexperiments:\n  - \(experiment)", file: "p.yaml")
    }

    private func withStore(_ body: (String) throws -> Void) throws {
        let path = NSTemporaryDirectory() + "apus-store-\(getpid())-\(UUID()).sqlite"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try body(path)
    }

    private func record(_ run: PlannedRun, moves: Int, failing: Int? = nil) -> RunRecord {
        var record = RunRecord(run)
        record.moves = (1...moves).map { number in
            var move = MoveRecord("c-\(number)", from: "a", to: "b")
            move.report = MigrationReport(plan: MigrationPlan(technique: .migrror))
            move.report!.engineDowntime = Double(number)
            move.report!.passes = [PassReport(start: 0, duration: 1, pages: 2, bytes: 3)]
            if number == failing { (move.report, move.error) = (nil, "broken") }
            return move
        }
        record.verdicts = [Verdict("intact", true, "")]
        return record
    }

    @Test func aRunHasARowForEachMigration() throws {
        try withStore { path in
            let plan = try Self.plan("{name: a, techniques: [migrror], set: {containers: 3}}")
            let store = try ResultStore(path, create: true)
            try store.register(plan)
            let session = try store.beginSession(SessionRecord(runtime: "runc", program: "0", load: "0"))
            try store.add(record(plan.runs[0], moves: 3), session: session)
            try store.add(record(plan.runs[1], moves: 3, failing: 2), session: session)
            let rows = try store.database.read { try Row.fetchAll($0, sql: "SELECT * FROM run ORDER BY id") }
            #expect(rows.map { $0["move"] as Int } == [1, 2, 3, 1, 2, 3])
            #expect(rows.map { $0["passed"] as Int } == [1, 1, 1, 1, 0, 1])
            #expect(rows.map { $0["engine_downtime_ms"] as Double? } == [1, 2, 3, 1, nil, 3])
            #expect(rows[4]["error"] as String == "broken")
            #expect(try store.counts() == (2, 1))
            #expect(try store.made(passed: false) == Set(plan.runs.map(\.name)))
            #expect(try store.made(passed: true) == [plan.runs[0].name])
        }
    }

    /// A run that failed is kept with its number when it is made again, and the last attempt counts.
    @Test func attemptsThatFailedAreKept() throws {
        try withStore { path in
            let plan = try Self.plan("{name: a, techniques: [migrror], set: {containers: 2}}")
            let store = try ResultStore(path, create: true)
            try store.register(plan)
            let session = try store.beginSession(SessionRecord(runtime: "runc", program: "0", load: "0"))
            try store.add(record(plan.runs[0], moves: 2, failing: 1), session: session)
            try store.add(record(plan.runs[0], moves: 2), session: session)
            let rows = try store.database.read { try Row.fetchAll($0, sql: "SELECT * FROM run ORDER BY id") }
            #expect(rows.map { $0["attempt"] as Int } == [1, 1, 2, 2])
            #expect(rows.map { $0["passed"] as Int } == [0, 0, 1, 1])
            #expect(rows.prefix(2).allSatisfy { $0["error"] as String? != nil })
            #expect(try store.counts() == (1, 0) && store.made(passed: true) == [plan.runs[0].name])
        }
    }

    @Test func repetitionsAreMadeInBlocks() throws {
        let plan = try EvaluationPlan(
            "name: x\nrepetitions: 7\nblocks: 3\nexperiments: [{name: a, techniques: [cold]}]", file: "p.yaml")
        #expect(plan.runs.map(\.block) == [1, 1, 1, 2, 2, 3, 3])
        let few = try EvaluationPlan(
            "name: x\nrepetitions: 1\nblocks: 3\nexperiments: [{name: a, techniques: [cold]}]", file: "p.yaml")
        #expect(few.runs.map(\.block) == [1])
    }

    /// A plan may lose points; the runs made for them stay, and are nobody's business.
    @Test func runsOfPointsThatThePlanLostDoNotCount() throws {
        try withStore { path in
            let before = try Self.plan("{name: a, techniques: [migrror], vary: {lambda: [0.1, 0.2]}}")
            let store = try ResultStore(path, create: true)
            try store.register(before)
            let session = try store.beginSession(SessionRecord(runtime: "runc", program: "0", load: "0"))
            for run in before.runs { try store.add(record(run, moves: 1, failing: 1), session: session) }
            #expect(try store.counts() == (4, 4))
            try store.register(try Self.plan("{name: a, techniques: [migrror], vary: {lambda: [0.2]}}"))
            #expect(try store.counts() == (2, 2))
            let page = try EvaluationReport(store).page().html
            #expect(page.contains("2 of 2 runs made, 2 failed") && !page.contains("lambda=0.1 #1: broken"))
            #expect(page.components(separatedBy: ": broken").count == 3)
        }
    }

    @Test func aRunThatNeverMigratedCounts() throws {
        try withStore { path in
            let plan = try Self.plan("{name: a, techniques: [cold]}")
            let store = try ResultStore(path, create: true)
            try store.register(plan)
            var record = RunRecord(plan.runs[0])
            record.error = "no container"
            let session = try store.beginSession(SessionRecord(runtime: "runc", program: "0", load: "0"))
            try store.add(record, session: session)
            #expect(try store.counts() == (1, 1))
        }
    }

    /// A column of `point` is NULL where its parameter means nothing.
    @Test func pointsHaveWhatMattersOnly() throws {
        try withStore { path in
            let plan = try Self.plan(
                "{name: a, techniques: [pre-copy, migrror], set: {bandwidth: 500mbit, event-pages: 1}}")
            let store = try ResultStore(path, create: true)
            try store.register(plan)
            let rows = try store.database.read { try Row.fetchAll($0, sql: "SELECT * FROM point ORDER BY technique") }
            #expect(rows.map { $0["technique"] as String } == ["MiGrror", "pre-copy"])
            #expect(rows.map { $0["event_pages"] as Double? } == [1, nil])
            #expect(rows.map { $0["max_rounds"] as Double? } == [nil, 30])
            #expect(rows.allSatisfy { $0["bandwidth_mbit"] == 500.0 && $0["lambda"] == 0.1 })
            #expect(rows.allSatisfy { $0["trigger_after_s"] as Double? == nil })
        }
    }

    @Test func resultsOfAnotherVersionAreRefused() throws {
        try withStore { path in
            let database = try DatabaseQueue(path: path)
            var migrator = DatabaseMigrator()
            migrator.registerMigration("1") { try $0.execute(sql: "CREATE TABLE run (id INTEGER)") }
            try migrator.migrate(database)
            let error = try #require(throws: ResultError.self) { try ResultStore(path) }
            #expect(error.description.contains("another version"))
        }
    }
}

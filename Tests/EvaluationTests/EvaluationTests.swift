// A small plan end to end: real containers between two edge hosts, results, report, export.
import Foundation
import GRDB
import Testbed
import Testing

@testable import Evaluation

@Suite(.serialized, .enabled(if: geteuid() == 0))
struct EvaluationTests {
    private let folder = NSTemporaryDirectory() + "apus-evaluation-\(getpid())"

    private static let plan = """
        name: tiny
        title: Tiny
        repetitions: 2
        settle: 0.2
        base: {memory: 8MiB, lambda: 0.1}
        experiments:
          - name: dirty-rate
            techniques: [pre-copy, migrror]
            vary: {lambda: [0, 0.1]}
          - name: three
            techniques: [migrror]
            repetitions: 1
            set: {containers: 3}
          - name: cold
            techniques: [cold]
            repetitions: 1
          - name: queue
            techniques: [pre-copy]
            repetitions: 1
            set: {memory: 64MiB, lambda: 0.4}
          - name: too-fast
            techniques: [migrror]
            repetitions: 1
            set: {memory: 16MiB, bandwidth: 200mbit, lambda: 1.2}
        """

    @Test func smallPlanEndToEnd() async throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let plan = try EvaluationPlan(Self.plan, file: "tiny.yaml")
        let path = folder + "/results.sqlite"
        let store = try ResultStore(path, create: true)
        var options = Evaluation.Options()
        options.instance = "evaltest"
        options.agentProgram = try BuiltProgram.path()

        // Stopped before its end, as by a time limit: what has been made is kept.
        options.timeLimit = 0
        let first = try await Evaluation(plan, store: store, options: options) { _ in }.run()
        #expect(first.made >= 1 && first.left == plan.runs.count - first.made && first.leftovers.isEmpty)

        options.timeLimit = nil
        let again = try ResultStore(path)
        let second = try await Evaluation(plan, store: again, options: options) { _ in }.run()
        #expect(second.made == plan.runs.count - first.made && second.left == 0, "only what was left is made")
        #expect(second.failed == 0 && first.failed == 0 && second.leftovers.isEmpty)
        #expect(try again.made(passed: true) == Set(plan.runs.map(\.name)))

        let report = try EvaluationReport(again)
        let page = try String(contentsOfFile: try report.write(to: folder + "/report"), encoding: .utf8)
        #expect(page.contains("12 of 12 runs made, 0 failed"))
        #expect(page.contains("What this machine cannot say") && page.contains("SELECT p.technique"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder + "/report/figures").count > 5)

        var lines: [String] = []
        try again.export(.csv) { lines.append($0) }
        // A row a migration: one run makes three.
        #expect(lines.count == 15 && lines[0].contains("engine_downtime_ms"))
        let three = try again.database.read { db in
            try Row.fetchAll(
                db,
                sql: """
                    SELECT r.* FROM run r JOIN point p ON p.id = r.point WHERE p.containers = 3 ORDER BY r.move
                    """)
        }
        #expect(three.map { $0["container"] as String } == ["dirtier", "dirtier-2", "dirtier-3"])
        #expect(three.map { $0["move"] as Int } == [1, 2, 3])
        #expect(three.allSatisfy { ($0["workload_downtime_ms"] ?? 0.0) > 0 && ($0["source_cpu_s"] ?? -1.0) >= 0 })
        // Faster than the link: never in sync, and handed over all the same.
        let fast = try again.database.read { db in
            try Row.fetchAll(db, sql: "SELECT r.* FROM run r JOIN point p ON p.id = r.point WHERE p.lambda > 1")
        }
        #expect(fast.count == 1 && fast[0]["passed"] as Bool && fast[0]["ready_ms"] as Double? == nil)
        // A round ends when the link has taken it, so pre-copy gets ready before its rounds are used up.
        let rounds = try again.database.read { db in
            try Row.fetchAll(
                db,
                sql: """
                    SELECT r.* FROM run r JOIN point p ON p.id = r.point
                        WHERE p.technique = 'pre-copy' AND p.lambda = 0.4
                    """)
        }
        #expect(rounds.count == 1 && rounds[0]["ready_ms"] as Double? != nil, "\(rounds)")
        var json = ""
        try again.export(.json, table: "pass") { json += $0 }
        let passes = try #require(try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [[String: Any]])
        #expect(passes.count >= 9)

        // A store belongs to one plan.
        var other = plan
        other.name = "other"
        #expect(throws: ResultError.self) { try again.register(other) }
    }

    @Test func missingResultsAreNamed() throws {
        let error = try #require(throws: ResultError.self) { try ResultStore("/nowhere/x.sqlite") }
        #expect(error.description.contains("/nowhere/x.sqlite"))
    }
}

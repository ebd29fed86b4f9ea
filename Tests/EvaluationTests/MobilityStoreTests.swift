// A mobility run in the store and in the report: migrations are rows, handoffs and users stand beside them.
import Foundation
import GRDB
import Migration
@testable import Testbed
import Testing

@testable import Evaluation

struct MobilityStoreTests {
    private static let plan = """
        name: x
        topology: t
        repetitions: 1
        techniques: [migrror]
        base: {workload: redis}
        experiments: [{name: a, vary: {mobility: [none, proactive]}}]
        """

    /// One user: handed over with a migration, then turned back, which cancelled another one.
    private func outcome(staying: Bool) -> MobilityOutcome {
        var outcome = MobilityOutcome()
        var user = MobilityUser(device: "ue-1", trace: "car", containers: ["redis"])
        (user.requests, user.answered, user.largestGap) = (1000, 998, 12)
        user.latency = [("near", 900, 1.0), ("far", 90, 21), ("handoff", 0, 0)].map { stretch, requests, latency in
            LatencySummary(
                stretch: stretch, requests: requests, unanswered: 0, late: Int?.none, duplicated: 0, p50: latency,
                p95: latency, p99: latency, p999: latency, slowest: latency)
        }
        user.verdicts = [Verdict("answers throughout", true, "")]
        outcome.users = [user]
        var handoff = MobilityHandoff(user: 0, time: 40, from: "ap-1", to: "ap-2")
        (handoff.leftAt, handoff.joinedAt, handoff.interruption) = (1_000_000, 102_000_000, 205)
        let event = MobilityEvent(time: 40, kind: .handoff, serving: 0, target: 1, distance: 961)
        outcome.events = [PlayedEvent(user: 0, event: event, action: staying ? "" : "handover")]
        if !staying {
            var cancelled = MobilityMigration(
                user: 0, container: "redis", source: "a", destination: "b", handover: .atTrigger, decidedAt: 10)
            cancelled.end = .cancelled
            var made = cancelled
            (made.end, made.decidedAt, made.zoneAt, made.handoffAt, made.releasedAt) = (.arrived, 29, 29, 40, 40.1)
            made.report = MigrationReport(plan: MigrationPlan(technique: .migrror))
            made.report?.engineDowntime = 3
            made.observation = Observation()
            made.observation?.clientDowntime = 4
            made.wasReady = true
            outcome.migrations = [cancelled, made]
            handoff.migration = 1
            handoff.wasLocal = true
        }
        outcome.handoffs = [handoff]
        return outcome
    }

    @Test func handoffsAndMigrationsAreKept() throws {
        let path = NSTemporaryDirectory() + "apus-mobility-\(getpid())-\(UUID()).sqlite"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let plan = try EvaluationPlan(Self.plan, file: "p.yaml")
        let store = try ResultStore(path, create: true)
        try store.register(plan)
        let session = try store.beginSession(SessionRecord(runtime: "runc", program: "0", load: "0"))
        for run in plan.runs {
            var record = RunRecord(run)
            record.take(outcome(staying: run.parameters.mobility == .staying))
            #expect(record.passed, "\(record.problem ?? "")")
            try store.add(record, session: session)
        }
        #expect(try store.counts() == (2, 0))
        let rows = try store.database.read {
            try Row.fetchAll(
                $0,
                sql: """
                    SELECT p.mobility, r.engine_downtime_ms AS downtime, r.interruption_ms AS noticed, h.radio_ms AS radio,
                        h.interruption_ms AS interruption, h.migration = r.id AS own, h.was_ready AS ready
                    FROM run r JOIN point p ON p.id = r.point JOIN handoff h ON h.run = r.id ORDER BY p.mobility
                    """)
        }
        #expect(rows.map { $0["mobility"] as String } == ["none", "proactive"])
        #expect(
            rows.map { $0["downtime"] as Double? } == [nil, 3] && rows.map { $0["noticed"] as Double? } == [nil, 205])
        #expect(rows.allSatisfy { $0["radio"] as Double == 101 && $0["interruption"] as Double == 205 })
        #expect(rows.map { $0["own"] as Int? } == [nil, 1] && rows.map { $0["ready"] as Int? } == [nil, 1])

        let page = try EvaluationReport(store).page()
        let section = try #require(page.sections.first { $0.title == "Does moving help a user who moves?" })
        #expect(section.blocks.count == 6, "an answer, three figures, a text, a fold with the tables")
        #expect(page.html.contains("no migration") && page.html.contains("1 of 1"))
        #expect(page.html.contains("MiGrror's interruption at a handoff is 205"))
        #expect(page.html.contains("Latency near and far") && page.html.contains("proactive, MiGrror, far"))
    }

    /// A service that did not answer makes the run fail, and one that failed to move does.
    @Test func failuresCount() throws {
        let plan = try EvaluationPlan(Self.plan, file: "p.yaml")
        var bad = outcome(staying: false)
        bad.users[0].verdicts[0].passed = false
        var record = RunRecord(plan.runs[0])
        record.take(bad)
        #expect(!record.passed && record.problem?.contains("ue-1: answers throughout") == true)
        bad = outcome(staying: false)
        (bad.migrations[1].end, bad.migrations[1].report, bad.migrations[1].error) = (.failed, nil, "broken")
        record = RunRecord(plan.runs[0])
        record.take(bad)
        #expect(!record.passed && record.problem == "broken")
    }
}

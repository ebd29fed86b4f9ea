// A mobility run as it goes into the store.
import GRDB
import Testbed

extension MobilityOutcome {
    /// Migrations that count as such: one that was cancelled, since its user turned back, is an event.
    var counted: [Int] { migrations.indices.filter { migrations[$0].end != .cancelled } }

    /// - Parameters:
    ///   - run: row to which everything belongs.
    ///   - rows: those of `counted`.
    func insert(_ db: Database, run: Int64, migrations rows: [Int64]) throws {
        let ids = Dictionary(zip(counted, rows)) { first, _ in first }
        for handoff in handoffs {
            let migration = handoff.migration.map { migrations[$0] }
            var row = RowValues("handoff")
            row["run"] = run
            row["user"] = users[handoff.user].device
            row["at_s"] = handoff.time
            row["from_point"] = handoff.from
            row["to_point"] = handoff.to
            row["radio_ms"] = handoff.radio
            row["interruption_ms"] = handoff.interruption
            row["was_local"] = handoff.wasLocal
            row["migration"] = handoff.migration.flatMap { ids[$0] }
            row["zone_s"] = migration?.zoneAt
            row["decided_s"] = migration?.decidedAt
            row["released_s"] = migration?.releasedAt
            row["state"] = migration?.stateAtHandoff
            row["was_ready"] = migration?.wasReady
            try row.insert(db)
        }
        for user in users {
            var row = RowValues("mobility_user")
            row["run"] = run
            row["user"] = user.device
            row["trace"] = user.trace
            row["requests"] = user.requests
            row["answered"] = user.answered
            row["late"] = user.late
            row["largest_gap_ms"] = user.largestGap
            try row.insert(db)
            for latency in user.latency where latency.requests > 0 {
                var row = RowValues("mobility_latency")
                (row["run"], row["user"], row["stretch"]) = (run, user.device, latency.stretch)
                row["requests"] = latency.requests
                row["unanswered"] = latency.unanswered
                row["late"] = latency.late
                row["p50_ms"] = latency.p50
                row["p95_ms"] = latency.p95
                row["p99_ms"] = latency.p99
                row["slowest_ms"] = latency.slowest
                try row.insert(db)
            }
        }
        for played in events {
            var row = RowValues("mobility_event")
            row["run"] = run
            row["user"] = users[played.user].device
            row["at_s"] = played.event.time
            row["event"] = played.event.kind.rawValue
            row["distance_m"] = played.event.distance
            row["action"] = played.action
            try row.insert(db)
        }
    }

    /// In a line.
    var words: String {
        let interruptions = handoffs.compactMap(\.interruption)
        let arrived = migrations.count { $0.end == .arrived }
        let median =
            interruptions.isEmpty ? "" : ", median interruption \(Int(Sample(interruptions).median.rounded())) ms"
        return "\(handoffs.count) handoffs, \(arrived) migrations\(median)"
    }
}

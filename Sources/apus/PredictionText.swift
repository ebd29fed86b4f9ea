// What `apus predict` shows.
import Evaluation
import Testbed

/// Predictions as tables for people.
struct PredictionText {
    let predictor: Predictor
    init(_ predictor: Predictor) { self.predictor = predictor }

    var text: String {
        let remarks = predictor.all.filter { !$0.remarks.isEmpty }
        let width = remarks.map(\.name.count).max() ?? 0
        let lines = remarks.map { prediction in
            let space = String(repeating: " ", count: width - prediction.name.count)
            return "  \(prediction.name)\(space)  \(prediction.remarks.joined(separator: "; "))"
        }
        return [
            given, models, lines.joined(separator: "\n"),
            "Published simulation (constants of MiGrror's authors' simulator, never measured; handoff 0 ms):",
            published,
        ].joined(separator: "\n\n")
    }

    private var given: String {
        let scenario = predictor.scenario
        let set = scenario.workingSet.map { ", working set \(Human.bytes(UInt64($0)))" } ?? ""
        let others = scenario.containers > 1 ? " of each of \(scenario.containers) containers" : ""
        let link = scenario.bandwidth.isFinite ? Human.rate(scenario.bandwidth) : "unlimited"
        return """
            state   \(Human.bytes(UInt64(scenario.size))), dirtied at \(Human.bytes(UInt64(scenario.dirtyRate)))/s\(set)
            link    \(link), of which \(Human.rate(predictor.goodput)) reach memory\(others); round trip \
            \(Human.fixed(scenario.roundTrip, 2)) ms
            λ       \(Human.fixed(predictor.load, 3))
            fixed   \(Human.duration(predictor.fixed)) of every freeze of Apus, for a server with connections
            """
    }

    private var models: String {
        var table = TextTable([
            .init("TECHNIQUE"), .init("MODEL"), .init("MIGRATION TIME", .right), .init("DOWNTIME", .right),
            .init("TRAFFIC", .right), .init("OVERHEAD", .right),
        ])
        for prediction in predictor.all {
            table.add([
                prediction.name, prediction.model, Human.duration(prediction.migrationTime),
                Human.duration(prediction.downtime), Human.bytes(UInt64(prediction.traffic)),
                percent(prediction.overhead),
            ])
        }
        return table.text
    }

    private var published: String {
        var table = TextTable([
            .init("TECHNIQUE"), .init("MIGRATION TIME", .right), .init("", .left), .init("DOWNTIME", .right),
            .init("", .left), .init("TRAFFIC", .right), .init("", .left),
        ])
        for row in PublishedRow.all(predictor.scenario) {
            table.add([
                row.technique, row.migrationTime.map(Human.duration) ?? "", "= \(row.migrationTimeFormula)",
                row.downtime.map(Human.duration) ?? "", "= \(row.downtimeFormula)",
                Human.bytes(UInt64(row.traffic)), "= \(row.trafficFormula)",
            ])
        }
        return table.text
    }

    private func percent(_ share: Double) -> String { "\(Human.fixed(share * 100, 1)) %" }
}

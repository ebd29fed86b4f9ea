// What `apus predict --json` answers.
import Evaluation

/// Predictions for other programs: times in milliseconds, sizes in bytes, rates in bytes a second.
struct PredictionReport: Encodable {
    struct Scenario: Encodable {
        var size, dirtyRate, roundTrip, downtimeLimit: Double
        var workingSet, bandwidth: Double?
        var maxRounds, containers: Int
    }
    var scenario: Scenario
    var engine: EngineParameters
    var goodput: Double
    var lambda: Double
    var fixed: Double
    var predictions: [Prediction]
    /// Constants, never measured.
    var publishedSimulation: [PublishedRow]

    init(_ predictor: Predictor) {
        let given = predictor.scenario
        // JSON has no infinity: a link without a limit is left out.
        scenario = Scenario(
            size: given.size, dirtyRate: given.dirtyRate, roundTrip: given.roundTrip,
            downtimeLimit: given.downtimeLimit, workingSet: given.workingSet,
            bandwidth: given.bandwidth.isFinite ? given.bandwidth : nil, maxRounds: given.maxRounds,
            containers: given.containers)
        (engine, goodput, lambda) = (predictor.engine, predictor.goodput, predictor.load)
        (fixed, predictions) = (predictor.fixed, predictor.all)
        publishedSimulation = PublishedRow.all(given)
    }
}

/// One technique of the published simulation in a scenario.
struct PublishedRow: Encodable {
    var technique: String
    /// Milliseconds without jitter; nil: the link has no rate.
    var migrationTime: Double?
    var downtime: Double?
    /// Bytes without jitter.
    var traffic: Double
    var migrationTimeFormula: String
    var downtimeFormula: String
    var trafficFormula: String

    static func all(_ scenario: MigrationScenario) -> [PublishedRow] {
        func number(_ value: Double) -> String { value == value.rounded() ? "\(Int(value))" : "\(value)" }
        let (size, link) = (scenario.size, scenario.bandwidth)
        return PublishedSimulation.techniques.map { technique in
            func text(_ constant: PublishedSimulation.Constant) -> String {
                constant.spread == 0
                    ? number(constant.value) : "(\(number(constant.value)) ± \(number(constant.spread)))"
            }
            let (downtime, rests): (String, Bool) =
                switch technique.downtime {
                case .share(let share): ("\(text(share)) × migration time", true)
                case .handoff(let factor, let divisor):
                    ("\(number(factor)) × (handoff + 100 ms)" + (divisor == 1 ? "" : " ÷ \(Int(divisor))"), false)
                }
            return PublishedRow(
                technique: technique.name,
                migrationTime: link.isFinite ? technique.migrationTime(size: size, bandwidth: link) : nil,
                downtime: rests && !link.isFinite
                    ? nil : technique.downtime(size: size, bandwidth: link, handoff: 0),
                traffic: technique.traffic.value * size,
                migrationTimeFormula: "\(text(technique.migrationTime)) × base", downtimeFormula: downtime,
                trafficFormula: "\(text(technique.traffic)) × size")
        }
    }
}

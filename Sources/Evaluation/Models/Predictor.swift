// All techniques' models on one migration.
import Migration

/// All techniques in one scenario; the figures are those of one container.
public struct Predictor: Sendable {
    public var scenario: MigrationScenario
    public var engine: EngineParameters

    public init(_ scenario: MigrationScenario, engine: EngineParameters = EngineParameters()) {
        (self.scenario, self.engine) = (scenario, engine)
    }

    /// What reaches the destination of each container, in bytes a second.
    public var goodput: Double { engine.goodput(scenario.bandwidth) / Double(scenario.containers) }
    /// λ: dirty rate over goodput.
    public var load: Double { scenario.dirtyRate / goodput }
    /// Everything in the freeze but bytes of memory, in milliseconds.
    public var fixed: Double {
        engine.fixed(size: scenario.size, bandwidth: goodput, roundTrip: scenario.roundTrip)
    }

    /// Apus's own techniques, then migration with CRIU.
    public var all: [Prediction] { Technique.allCases.map(predict) + criu }

    public func predict(_ technique: Technique) -> Prediction {
        switch technique.copy {
        case .none: cold
        case .rounds: preCopy
        case .mirroring: mirror
        }
    }

    private var cold: Prediction {
        let model = ColdModel(size: scenario.size, bandwidth: goodput, fixed: fixed)
        return Prediction(
            Technique.cold.rawValue, model: "M/b + fixed", time: model.downtime, downtime: model.downtime,
            traffic: scenario.size + engine.contextBytes, size: scenario.size, [])
    }

    private var preCopy: Prediction {
        var model = PreCopyModel(size: scenario.size, bandwidth: goodput, dirtyRate: engine.wire(scenario.dirtyRate))
        model.workingSet = scenario.workingSet.map(engine.wire)
        // The rounds go on in the run-up to the freeze, below the limit.
        (model.downtimeLimit, model.maxRounds, model.resume) = (
            min(scenario.downtimeLimit, engine.runUp), scenario.maxRounds, fixed
        )
        // A round is found by a scan and answered.
        (model.passOverhead, model.writesAtRandom) = (
            engine.scan(scenario.size) + scenario.roundTrip, scenario.writesAtRandom
        )
        let outcome = model.outcome
        let rounds = outcome.liveRounds == 1 ? "1 round" : "\(outcome.liveRounds) rounds"
        var remarks = ["\(rounds) before the freeze"]
        if !outcome.converged {
            let why = model.load >= 1 ? "λ = \(short(model.load)): does not converge" : "slow to converge"
            remarks = ["\(why), ended by its limit of \(rounds)"]
        } else if model.load >= 1 {
            remarks.append("λ = \(short(model.load)), but the working set fits the downtime limit")
        }
        return Prediction(
            Technique.preCopy.rawValue, model: "Liu et al. 2011", time: outcome.transferTime + fixed,
            downtime: outcome.downtime, traffic: outcome.volume + engine.contextBytes, size: scenario.size, remarks)
    }

    private var mirror: Prediction {
        var model = MirrorModel(size: scenario.size, bandwidth: goodput, dirtyRate: engine.wire(scenario.dirtyRate))
        model.workingSet = scenario.workingSet.map(engine.wire)
        model.eventSize = max(engine.wire(pageBytes), model.dirtyRate * engine.syncInterval / 1000)
        model.writesAtRandom = scenario.writesAtRandom
        if model.dirtyRate > 0 { model.eventOverhead = engine.scan(scenario.size) }
        (model.fixed, model.runUp) = (fixed, engine.runUp)
        let remark =
            if let inSync = model.inSync {
                "in sync after \(short(inSync / 1000)) s; handed over at any later instant, at most "
                    + "\(short(model.downtime)) ms (a sync each \(short(engine.syncInterval)) ms)"
            } else {
                "λ = \(short(model.load)): the mirror cannot keep up, handed over as old as it is"
            }
        return Prediction(
            Technique.migrror.rawValue, model: "closed form (ours)", time: model.handover + model.downtimeWhenReady,
            downtime: model.downtimeWhenReady, traffic: model.volume + engine.contextBytes, size: scenario.size,
            [remark])
    }

    /// CRIU alone, which runc calls, cold.
    public var criuCold: Prediction { criu[0] }

    /// By PAM: CRIU alone and as Podman calls it, cold and after one pre-dump.
    private var criu: [Prediction] {
        [("CRIU", PAMModel.criu), ("Podman", .podman)].flatMap { name, model in
            let link = scenario.bandwidth * engine.linkEfficiency / Double(scenario.containers)
            let cold = model.cold(size: scenario.size, bandwidth: link)
            let predump = model.withPredump(
                size: scenario.size, bandwidth: link, dirtyRate: scenario.dirtyRate, workingSet: scenario.workingSet)
            return [
                Prediction(
                    "\(name) cold", model: "PAM 2024", time: cold, downtime: cold, traffic: scenario.size,
                    size: scenario.size, ["\(short(model.floor)) ms for an empty state"]),
                Prediction(
                    "\(name) pre-dump", model: "PAM 2024", time: predump.migrationTime, downtime: predump.downtime,
                    traffic: scenario.size + predump.rest, size: scenario.size,
                    ["one pre-dump; the dump's cost by dirtied share is our reading"]),
            ]
        }
    }
}

/// A number with three digits that count at most: "1.3", "0.042", "184".
func short(_ value: Double) -> String {
    guard value.isFinite, abs(value) < 1e9 else { return "\(value)" }
    var scale = 1.0
    while abs(value) * scale < 100, scale < 1000 { scale *= 10 }
    let rounded = (value * scale).rounded() / scale
    return rounded == rounded.rounded() ? "\(Int(rounded))" : "\(rounded)"
}

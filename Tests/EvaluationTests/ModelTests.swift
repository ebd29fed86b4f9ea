import Glibc
import Testing

@testable import Evaluation

/// Each value is worked by hand in its comment.
struct ModelTests {
    private func close(_ a: Double, _ b: Double) -> Bool { abs(a - b) <= 1e-9 * max(abs(a), abs(b), 1) }

    /// M = 1000, R = 100/s, λ = 1/2, V_th = 100: rounds 1000, 500, 250, 125, 62.5; n = ⌈log(0.1)/log(0.5)⌉ = 4.
    @Test func preCopyByLiu() {
        var model = PreCopyModel(size: 1000, bandwidth: 100, dirtyRate: 50)
        (model.downtimeLimit, model.resume) = (1000, 20)
        let outcome = model.outcome
        #expect(outcome.rounds == [1000, 500, 250, 125, 62.5])
        #expect(outcome.liveRounds == 4 && outcome.converged)
        // V = M (1 - λ^5) / (1 - λ) = 1000 · (1 - 1/32) · 2 = 1937.5; T = V / R.
        #expect(close(outcome.volume, 1937.5) && close(outcome.transferTime, 19_375))
        #expect(close(outcome.downtime, 625 + 20))
    }

    @Test func preCopyAboveOneEndsByItsRounds() {
        var model = PreCopyModel(size: 1000, bandwidth: 100, dirtyRate: 120)
        model.maxRounds = 5
        #expect(!model.outcome.converged && model.outcome.liveRounds == 5)
        #expect(model.outcome.rounds.last == 1000, "nothing can be dirty beyond the whole state")
    }

    /// What is written again and again counts once: 1000, then no more than 50, then halves of it until 10 fit.
    @Test func preCopyIsBoundByTheWorkingSet() {
        var model = PreCopyModel(size: 1000, bandwidth: 100, dirtyRate: 50)
        (model.downtimeLimit, model.workingSet) = (100, 50)
        #expect(model.outcome.rounds == [1000, 50, 25, 12.5, 6.25])
    }

    /// 1000 B at 100 B/s, and 20 ms.
    @Test func coldIsTheTransfer() {
        #expect(close(ColdModel(size: 1000, bandwidth: 100, fixed: 20).downtime, 10_020))
    }

    /// In sync after (M/b)/(1 - λ) = 10 s / 0.75.
    @Test func mirrorIsInSyncAfterTheClosedForm() throws {
        var model = MirrorModel(size: 1000, bandwidth: 100, dirtyRate: 25)
        model.eventSize = 4
        let inSync = try #require(model.inSync)
        #expect(close(inSync, 10_000 / 0.75))
        #expect(MirrorModel(size: 1000, bandwidth: 100, dirtyRate: 100).inSync == nil, "at λ = 1 it never is")
    }

    /// The queue with constant rates comes to the closed form, to an event's time.
    @Test func queueAgreesWithTheClosedForm() throws {
        let model = MirrorQueueModel(
            [.init(size: 1000, dirtyRate: PiecewiseConstant(25), eventSize: 4)], bandwidth: PiecewiseConstant(100))
        let outcome = model.run(until: 30_000)
        let inSync = try #require(outcome.inSync)
        #expect(abs(inSync - 10_000 / 0.75) < 160)
        #expect(outcome.keepsUp)
        #expect(outcome.containers[0].outstanding <= 4)
    }

    /// Bursts of the same mean leave more unsent when the handover falls into one: the average does not tell.
    @Test func burstsOfEqualMeanDiffer() throws {
        // 30/s for ever, or 150/s in one second of five; the handover falls at a burst's end.
        let steps = (0..<40).flatMap { second -> [PiecewiseConstant.Step] in
            [.init(start: Double(second) * 5000, rate: 0), .init(start: Double(second) * 5000 + 4000, rate: 150)]
        }
        let bursts = try #require(PiecewiseConstant(steps: steps))
        #expect(close(bursts.integral(from: 0, to: 100_000), 30 * 100))
        func downtime(_ rate: PiecewiseConstant) -> Double {
            MirrorQueueModel([.init(size: 1000, dirtyRate: rate, eventSize: 1)], bandwidth: PiecewiseConstant(100))
                .run(until: 100_000).containers[0].downtime
        }
        #expect(downtime(PiecewiseConstant(30)) < 20)
        // 150 dirtied and 100 sent in the second before: 50 are left, half a second.
        #expect(abs(downtime(bursts) - 500) < 20)
    }

    /// Two containers on one link wait for each other.
    @Test func containersShareTheLink() throws {
        let container = MirrorQueueModel.Container(size: 1000, dirtyRate: PiecewiseConstant(0))
        let one = MirrorQueueModel([container], bandwidth: PiecewiseConstant(100)).run(until: 60_000)
        let two = MirrorQueueModel([container, container], bandwidth: PiecewiseConstant(100)).run(until: 60_000)
        #expect(one.inSync == 10_000)
        #expect(two.inSync == 20_000)
    }

    /// 1,000 bytes at 1,000 a second, 100 a second written: 100 in the first round, and 1 in the 10 ms that it costs
    /// beside; of 1,000 that are written at random 1,000 · (1 - e^-0.101).
    @Test func aRoundsCostAndWhatIsWrittenTwiceCount() {
        var model = PreCopyModel(size: 1000, bandwidth: 1000, dirtyRate: 100)
        #expect(close(model.outcome.rounds[1], 100))
        model.passOverhead = 10
        #expect(close(model.outcome.rounds[1], 101))
        #expect(close(model.outcome.transferTime, model.outcome.volume + 10 * Double(model.outcome.liveRounds)))
        model.writesAtRandom = true
        #expect(close(model.outcome.rounds[1], 1000 * (1 - exp(-0.101))))
        var mirror = MirrorModel(size: 1000, bandwidth: 1000, dirtyRate: 100)
        let once = mirror.volume
        mirror.writesAtRandom = true
        #expect(mirror.volume < once)
    }

    /// β + φd + ψ = 84 + 40 + 60; by Podman 1.92 · 124 + 6.27 · 60.
    @Test func pamHasItsFloors() {
        #expect(close(PAMModel.criu.floor, 184))
        #expect(close(PAMModel.podman.floor, 614.28))
        // 10⁸ bytes at 10⁸ bytes a second: dump 124 + 1e-7·30·1e8 = 424, send 1000, restore 60 + 80.
        #expect(close(PAMModel.criu.cold(size: 1e8, bandwidth: 1e8), 424 + 1000 + 140))
    }

    /// 10⁸ bytes at 10⁸ bytes a second, dirtied at 10⁷: pre-dump 84 + 6 + 10 + 1.8 + 300 = 401.8, sent in 1000; dirtied
    /// meanwhile 1.4018·10⁷, so dump 124 + 300·0.14018 = 166.054, sent in 140.18, restored in 140.
    @Test func pamWithAPredump() {
        let outcome = PAMModel.criu.withPredump(size: 1e8, bandwidth: 1e8, dirtyRate: 1e7)
        #expect(close(outcome.rest, 1.4018e7))
        #expect(close(outcome.downtime, 166.054 + 140.18 + 140))
        #expect(close(outcome.migrationTime, 401.8 + 1000 + 446.234))
    }

    /// 100/s until 1 s, nothing until 2 s, 50/s from then on.
    @Test func ratesAddUp() throws {
        let rate = try #require(
            PiecewiseConstant(steps: [
                .init(start: 0, rate: 100), .init(start: 1000, rate: 0), .init(start: 2000, rate: 50),
            ]))
        #expect(close(rate.integral(from: 500, to: 3000), 50 + 50))
        #expect(close(rate.instant(of: 100, since: 500), 3000))
        #expect(PiecewiseConstant(steps: [.init(start: 1, rate: 1)]) == nil, "the first step is at 0")
    }

    /// 128 MiB at 1 Gbit/s: base 1073.741824 ms.
    @Test func publishedSimulationIsConstants() throws {
        func technique(_ name: String) throws -> PublishedSimulation {
            try #require(PublishedSimulation.techniques.first { $0.name == name })
        }
        let (size, bandwidth) = (134_217_728.0, 125e6)
        let (preCopy, mirror) = (try technique("pre-copy"), try technique("MiGrror"))
        #expect(close(preCopy.migrationTime(size: size, bandwidth: bandwidth), 1.349 * 1073.741824))
        #expect(close(mirror.downtime(size: size, bandwidth: bandwidth, handoff: 0), 5))
        #expect(close(mirror.downtime(size: size * 8, bandwidth: bandwidth, handoff: 0), 5))
    }

    @Test func fitFindsItsParameters() throws {
        let gibibyte = Double(1 << 30)
        let fit = try #require(ParameterFit([0.25, 0.5, 1, 2].map { (size: $0 * gibibyte, downtime: 1.5 + 0.4 * $0) }))
        #expect(close(fit.fixed, 1.5) && close(fit.perGiB, 0.4) && close(fit.line.determination, 1))
    }

    @Test func predictionsFollowTheScenario() {
        let scenario = MigrationScenario(size: 134_217_728, dirtyRate: 12.5e6, bandwidth: 125e6, roundTrip: 0.1)
        let predictor = Predictor(scenario)
        #expect(predictor.predict(.cold).downtime > 1000)
        #expect(predictor.predict(.preCopy).downtime < 10 && predictor.predict(.migrror).downtime < 10)
        // Two at a time have half of the link each.
        var two = scenario
        two.containers = 2
        #expect(close(Predictor(two).goodput, predictor.goodput / 2))
        #expect(close(Predictor(two).load, predictor.load * 2))
        var overloaded = scenario
        overloaded.dirtyRate = 200e6
        #expect(Predictor(overloaded).predict(.migrror).downtime > 500)
    }
}

// What a technique does before the freeze, by its plan: rounds, syncs, run-up, and the literature's presets. By counts
// of pages and passes, not by time.
import Glibc
import LinuxKernel
import Testing

@testable import Migration

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(3)))
struct CopyPhaseTests {
    /// Moves a program that writes `rate` pages a second, triggered some time after its memory was sent once.
    private func move(_ plan: MigrationPlan, rate: Int, threads: Int = 2, triggerAfter: UInt32 = 0) throws
        -> MigrationReport
    {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run(
            "dirt", "dirtier", ["--memory", "64M", "--rate", "\(rate)", "--threads", "\(threads)"])
        try hosts.waitUntilReady(container)
        let control = MigrationControl()
        if plan.handover == .atTrigger {
            try OwnThread.start("trigger") {
                for _ in 0..<10_000 where control.progress.passes == 0 { usleep(1000) }
                usleep(triggerAfter)
                control.triggerHandover()
            }
        }
        let (report, moved) = try hosts.migrate(container, plan, control: control)
        let verdict = try hosts.verdict(moved, on: 1)
        #expect(verdict.contains("\"oracle\":\"ok\""), "\(verdict)")
        return report
    }

    private func plan(_ technique: Technique, _ preset: TechniquePreset? = nil, atTrigger: Bool = false)
        -> MigrationPlan
    {
        var plan = MigrationPlan(technique: technique)
        if let preset { plan.apply(preset) }
        if atTrigger { plan.handover = .atTrigger }
        return plan
    }

    /// All that 5,000 writes a second change in 0.4 s is sent in the freeze, or next to nothing.
    @Test func withoutARunUpTheFreezeSendsWhatIsDirty() throws {
        var plan = plan(.preCopy, atTrigger: true)
        (plan.maxRounds, plan.waitInterval) = (1, nil)
        let with = try move(plan, rate: 5000, triggerAfter: 400_000)
        plan.runUp = 0
        let without = try move(plan, rate: 5000, triggerAfter: 400_000)
        #expect(without.passes.count == 2, "\(without.passes)")
        #expect(without.passes.last!.pages > 1000, "\(without.passes)")
        #expect(with.passes.count > 3 && with.passes.last!.pages < 500, "\(with.passes)")
    }

    @Test(arguments: [1, 2, 4]) func maxRoundsAreSoMany(_ rounds: Int) throws {
        var plan = plan(.preCopy)
        (plan.maxRounds, plan.runUp, plan.readyWithin) = (rounds, 0, 0.001)
        // Time for the program to write something in each round, on a busy machine too: a round that finds nothing is
        // the last one.
        plan.roundInterval = 100
        let report = try move(plan, rate: 20_000)
        #expect(report.passes.count == rounds + 1, "\(report.passes)")
    }

    /// A run-up of so many milliseconds is one pass at least, and may be no more.
    @Test func aShortRunUpIsOnePass() throws {
        var plan = plan(.preCopy)
        (plan.maxRounds, plan.runUp) = (1, 0.001)
        #expect(try move(plan, rate: 20_000).passes.count == 3)
    }

    @Test func roundsOnAFixedIntervalGoOnUntilTheTrigger() throws {
        var plan = plan(.preCopy, atTrigger: true)
        plan.roundInterval = 50
        plan.apply(.fixedInterval)
        let report = try move(plan, rate: 2000, triggerAfter: 500_000)
        // Some 10 until the trigger, and more while the handover is prepared; one in 50 ms in the mean, and each after
        // the one before, give or take what looking for its pages takes.
        let starts = report.passes.dropLast().map(\.start)
        #expect(starts.count >= 4, "\(starts)")
        #expect(starts.last! - starts.first! >= 45 * Double(starts.count - 1), "\(starts)")
    }

    /// 5,000 pages a second for 700 ms are not left to the freeze: the next round is made at once.
    @Test func aTriggerBetweenRoundsBeginsOne() throws {
        var plan = plan(.preCopy, atTrigger: true)
        (plan.roundInterval, plan.runUp, plan.readyWithin) = (2000, 0, 0.001)
        let report = try move(plan, rate: 5000, triggerAfter: 700_000)
        #expect(report.passes.count == 3 && report.passes.last!.pages < 1500, "\(report.passes)")
        #expect(report.passes[1].pages > 1500, "\(report.passes)")
    }

    /// Of 20 rounds that the plan allows, each of which finds some hundred pages.
    @Test func eachStopRuleEndsTheRounds() throws {
        func passes(_ change: (inout MigrationPlan) -> Void) throws -> Int {
            var plan = plan(.preCopy)
            (plan.maxRounds, plan.roundInterval, plan.runUp, plan.readyWithin) = (20, 30, 0, 0.001)
            change(&plan)
            return try move(plan, rate: 50_000).passes.count
        }
        #expect(try passes { _ in } == 21)
        // The first look is below the threshold already.
        #expect(try passes { $0.stopPages = 1_000_000 } == 2)
        // Rounds of equal length vary by more than nothing.
        #expect(try passes { $0.stopGrowth = 0 } < 18)
    }

    /// Each by the rule that it is known for.
    @Test func presetsStopByTheirRules() throws {
        // Writes faster than rounds get shorter: 50 pages are never left, so five rounds and the last one are made.
        #expect(try move(plan(.preCopy, .xen), rate: 50_000).passes.count <= 6)
        #expect(try move(plan(.preCopy, .phaul), rate: 50_000).passes.count <= 9)
        #expect(try move(plan(.preCopy, .onePreDump), rate: 2000).passes.count == 2)
        // What is left is below the threshold at the first look, or nearly.
        let idle = try move(plan(.preCopy, .liu), rate: 100)
        #expect(idle.passes.count <= 3 && idle.passes.last!.pages <= 300, "\(idle.passes)")
        let quick = try move(plan(.preCopy, .qemu), rate: 5000)
        #expect(quick.passes.count <= 3 && quick.readyAt != nil, "\(quick.passes)")
    }

    /// 40 writes a second are as many events, though a wake-up could wait for more faults.
    @Test func publishedMiGrrorSyncsEachPage() throws {
        let report = try move(
            plan(.migrror, .published, atTrigger: true), rate: 40, threads: 1, triggerAfter: 1_500_000)
        let syncs = report.passes.dropFirst().dropLast().map(\.pages)
        // Each write changes its page, and the table beside it.
        #expect(syncs.count >= 20, "\(syncs)")
        #expect(syncs.sorted()[syncs.count / 2] <= 4, "\(syncs)")
        #expect(report.passes.last!.pages < 32, "\(report.passes.last!)")
    }

    /// It does not give up, as it does when its syncs get no shorter.
    @Test func aMirrorOfAProgramThatHardlyWritesIsReady() throws {
        #expect(try move(plan(.migrror), rate: 1).readyAt != nil)
    }

    @Test func aPresetLeavesOpenWhatItDoesNotDecide() {
        var plan = MigrationPlan(technique: .migrror)
        (plan.handover, plan.freezeLimit) = (.atTrigger, nil)
        plan.apply(.published)
        #expect(plan.handover == .atTrigger && plan.freezeLimit == nil && plan.runUp == 0)
        for preset in TechniquePreset.allCases {
            var plan = MigrationPlan(technique: preset.technique)
            plan.apply(preset)
            #expect(plan.mistakes == [] && plan.runUp == 0, "\(preset)")
        }
    }
}

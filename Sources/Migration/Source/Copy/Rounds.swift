// Pre-copy: rounds on the clock, each of which sends what was dirtied since the last.
import LinuxKernel

final class Rounds: CopyStrategy {
    private let copier: Copier, plan: MigrationPlan, trigger: HandoverTrigger
    private var clock = PassClock()

    init(_ copier: Copier, _ plan: MigrationPlan, _ trigger: HandoverTrigger) {
        (self.copier, self.plan, self.trigger) = (copier, plan, trigger)
    }

    /// The first round sends everything. The rounds end with what the last look found still to be sent.
    func run() throws {
        try copier.arm()
        _ = clock.begin()
        try copier.pass()
        if try makeRounds() { return }
        clock.interval = trigger.isAwaited ? plan.waitInterval : nil
        try trigger.wait(copier) {
            guard isDue else { return }
            _ = clock.begin()
            try copier.pass()
        }
    }

    /// - Returns: whether the trigger ended them, and not one of the plan's rules.
    private func makeRounds() throws -> Bool {
        var round = 1, pagesBefore = UInt64.max
        while true {
            clock.interval = plan.roundInterval ?? 0
            if trigger.endsCopying { return true }
            if round >= plan.maxRounds { return false }
            // A trigger that comes meanwhile has the round begin at once.
            while !isDue, !trigger.endsCopying { try copier.idle(500) }
            let began = clock.begin()
            try copier.scan()
            copier.noteReadiness()
            if copier.isReady || stops(after: pagesBefore) { return false }
            pagesBefore = copier.pending.pages
            try copier.sendPending(began: began)
            round += 1
        }
    }

    /// Do the plan's rules end the rounds, with what the last look found?
    private func stops(after pagesBefore: UInt64) -> Bool {
        let pages = copier.pending.pages
        if let most = plan.stopPages, pages <= UInt64(most) { return true }
        guard let growth = plan.stopGrowth, pagesBefore != .max else { return false }
        return Double(pages) > Double(pagesBefore) * (1 + growth / 100)
    }

    /// A round ends when the link has taken it.
    private var isDue: Bool { clock.isDue && copier.isLinkFree }

    func keepUp() throws -> Bool {
        guard isDue else { return false }
        let began = clock.begin()
        try copier.scan()
        try copier.sendPending(began: began)
        return true
    }

    func runUp() throws -> Double { try runUp(plan, copier) }
}

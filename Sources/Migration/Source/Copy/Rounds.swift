// Pre-copy: rounds on the clock, each of which sends what was dirtied since the last.
import LinuxKernel

final class Rounds: CopyStrategy {
    private let copier: Copier, plan: MigrationPlan, wish: HandoverWish
    private var clock = PassClock()

    init(_ copier: Copier, _ plan: MigrationPlan, _ wish: HandoverWish) {
        (self.copier, self.plan, self.wish) = (copier, plan, wish)
    }

    /// The first round sends everything. It ends with what the last look found still to be sent.
    func run() throws {
        try copier.arm()
        _ = clock.begin()
        try copier.pass()
        try makeRounds()
        if wish.hasCome { return }
        clock.interval = wish.isAwaited ? plan.waitInterval : nil
        try wish.wait(copier) {
            guard isDue else { return }
            _ = clock.begin()
            try copier.pass()
        }
    }

    private func makeRounds() throws {
        var pagesBefore = UInt64.max
        for round in 1... {
            clock.interval = plan.roundInterval ?? 0
            if wish.hasCome || round >= plan.maxRounds { return }
            while !isDue {
                if wish.hasCome { return }
                try copier.idle(500)
            }
            let began = clock.begin()
            try copier.scan()
            copier.noteReadiness()
            if copier.isReady || stops(after: pagesBefore) { return }
            pagesBefore = copier.pending.pages
            try copier.sendPending(began: began)
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

    func runUp() throws -> Double {
        if plan.runUp > 0 { return try RunUp(plan).run(copier) }
        _ = try keepUp()
        return copier.residue
    }
}

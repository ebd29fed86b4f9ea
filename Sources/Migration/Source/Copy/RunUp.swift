// Between the wish to hand over and the freeze.
import LinuxKernel

/// Passes back to back, each applied before the next begins, as long as they get shorter. Whatever went before (a round's
/// interval, a sync's spacing), the freeze then finds what was dirtied in the time that one small pass takes.
struct RunUp {
    /// Milliseconds that it may take.
    let limit: Double
    let readyWithin: Double
    /// The moment of the handover is ours to choose.
    let isFree: Bool

    init(_ plan: MigrationPlan) {
        (limit, readyWithin, isFree) = (plan.runUp, plan.readyWithin, plan.handover == .whenReady)
    }

    /// A burst of writes that begins meanwhile is waited out, if the moment of the handover is ours to choose: what was
    /// short before will be again.
    ///
    /// - Returns: milliseconds that the last pass took.
    func run(_ copier: Copier) throws -> Double {
        try copier.awaitAnswers(all: true)
        let begin = monotonicNow(), waitsOut = isFree && copier.isReady
        var shortest = Double.infinity, took = 0.0, inVain = 0
        while Double(monotonicNow() - begin) / 1e6 < limit {
            let start = monotonicNow()
            try copier.pass()
            try copier.awaitAnswers(all: true)
            took = Double(monotonicNow() - start) / 1e6
            if took < 1 { return took }
            inVain = took < 0.97 * shortest ? 0 : inVain + 1
            shortest = min(shortest, took)
            copier.shortestPass = min(copier.shortestPass, took)
            let isBurst = took > max(readyWithin, 4 * copier.shortestPass)
            if inVain >= 2, !(waitsOut && isBurst) { return took }
        }
        return took
    }
}

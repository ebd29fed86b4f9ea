// What happens to a container's memory before the handover: nothing, rounds, or mirroring.
import Glibc
import LinuxKernel

/// When memory is copied before the freeze. Each implementation is a technique's, with the parameters of its own.
protocol CopyStrategy: AnyObject {
    /// Copies until it is time to hand over: when the technique is ready, or the trigger has come.
    func run() throws
    /// Makes the pass that has come due, if one has.
    ///
    /// - Returns: whether one had.
    func keepUp() throws -> Bool
    /// Has as much as possible sent before the freeze.
    ///
    /// - Returns: milliseconds that the last pass took, or that what is left would take.
    func runUp() throws -> Double
    /// How events are noticed: "scan" or "faults"; nil: there are none.
    var events: String? { get }
}

extension CopyStrategy {
    var events: String? { nil }
}

extension Copier {
    /// The strategy of the plan's technique.
    func strategy(_ plan: MigrationPlan, _ wish: HandoverWish, _ faults: FaultPlace) -> any CopyStrategy {
        switch plan.technique.copy {
        case .none: NoCopy(self, wish)
        case .rounds: Rounds(self, plan, wish)
        case .mirroring: Mirroring(self, plan, wish, faults)
        }
    }
}

/// Whether the handover has been asked for from outside.
struct HandoverWish {
    let isAwaited: Bool
    private let control: MigrationControl

    init(_ plan: MigrationPlan, _ control: MigrationControl) {
        (isAwaited, self.control) = (plan.handover == .atTrigger, control)
    }

    /// The trigger has been given, whether it is waited for or not.
    var isTriggered: Bool { control.handoverTriggered }
    /// The trigger that was waited for has come.
    var hasCome: Bool { isAwaited && isTriggered }

    /// Waits for the trigger, if there is one to wait for, doing something meanwhile.
    func wait(_ copier: Copier, meanwhile: () throws -> Void = {}) throws {
        while isAwaited, !isTriggered {
            try copier.check()
            try copier.takeAnswers()
            try meanwhile()
            usleep(500)
        }
    }
}

/// Cold migration: all of the memory is sent in the freeze.
final class NoCopy: CopyStrategy {
    private let copier: Copier, wish: HandoverWish

    init(_ copier: Copier, _ wish: HandoverWish) { (self.copier, self.wish) = (copier, wish) }

    func run() throws { try wish.wait(copier) }
    func keepUp() -> Bool { false }
    /// Files have been sent ahead.
    func runUp() throws -> Double {
        try copier.awaitApplied()
        return 0
    }
}

/// The clock of passes: when the last one began, and how soon the next may follow.
struct PassClock {
    private(set) var began: Int64 = 0
    /// Milliseconds from the start of one pass to the next; nil: there is none.
    var interval: Double?

    /// - Returns: the instant at which the pass begins: now.
    mutating func begin() -> Int64 {
        began = monotonicNow()
        return began
    }

    var isDue: Bool {
        guard let interval else { return false }
        return Double(monotonicNow() - began) / 1e6 >= interval
    }
}

/// The handover begins: passes back to back, each applied before the next begins, as long as they get shorter. Whatever
/// went before (a round's interval, a sync's spacing), the freeze then finds what was dirtied in the time that one small
/// pass takes.
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

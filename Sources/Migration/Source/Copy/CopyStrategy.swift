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
    /// The last thing before the freeze: has as much sent as the plan's run-up lets.
    ///
    /// - Returns: milliseconds that the last pass took, or that what is left would take.
    func runUp() throws -> Double
    /// How events are noticed: "scan" or "faults"; nil: there are none.
    var events: String? { get }
}

extension CopyStrategy {
    var events: String? { nil }

    /// By the plan's run-up; without one the pass that has come due is made, if one has.
    func runUp(_ plan: MigrationPlan, _ copier: Copier) throws -> Double {
        if plan.runUp > 0 { return try RunUp(plan).run(copier) }
        _ = try keepUp()
        return copier.residue
    }
}

extension Copier {
    /// The strategy of the plan's technique.
    func strategy(_ plan: MigrationPlan, _ trigger: HandoverTrigger, _ faults: PageFaultTarget) -> any CopyStrategy {
        switch plan.technique.copy {
        case .none: NoCopy(self, trigger)
        case .rounds: Rounds(self, plan, trigger)
        case .mirroring: Mirroring(self, plan, trigger, faults)
        }
    }
}

/// The wish from outside to hand over (`apus handover`).
struct HandoverTrigger {
    /// The plan's handover waits for it.
    let isAwaited: Bool
    private let control: MigrationControl

    init(_ plan: MigrationPlan, _ control: MigrationControl) {
        (isAwaited, self.control) = (plan.handover == .atTrigger, control)
    }

    /// Whether it has been given, awaited or not.
    var isGiven: Bool { control.handoverTriggered }
    /// It is awaited and has been given.
    var endsCopying: Bool { isAwaited && isGiven }

    /// Waits for it, if it is awaited, doing something meanwhile.
    func wait(_ copier: Copier, meanwhile: () throws -> Void = {}) throws {
        while isAwaited, !isGiven {
            try copier.check()
            try copier.takeAnswers()
            try meanwhile()
            usleep(500)
        }
    }
}

/// Cold migration: all of the memory is sent in the freeze.
final class NoCopy: CopyStrategy {
    private let copier: Copier, trigger: HandoverTrigger

    init(_ copier: Copier, _ trigger: HandoverTrigger) { (self.copier, self.trigger) = (copier, trigger) }

    func run() throws { try trigger.wait(copier) }
    func keepUp() -> Bool { false }
    /// Waits until the destination has taken the files, so that the freeze does not.
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

// Where the microseconds of the freeze go: each step by name, on the clock of the side that takes it.
import LinuxKernel

/// Collects the steps of one side.
final class StepClock {
    private(set) var steps: [WireStep] = []

    /// Times a step.
    func measure<T>(_ name: String, _ body: () throws -> T) rethrows -> T {
        let start = monotonicNow()
        defer { note(name, start, monotonicNow()) }
        return try body()
    }

    func note(_ name: String, _ start: Int64, _ end: Int64) {
        var step = WireStep()
        (step.name, step.start, step.duration) = (name, start, end - start)
        steps.append(step)
    }
}

extension StepReport {
    /// A step of one side, with its start moved to the source's clock and counted from the freeze.
    init(_ step: WireStep, side: String, frozenAt: Int64, clockOffset: Int64) {
        self.init(
            name: step.name, side: side, start: Double(step.start - clockOffset - frozenAt) / 1000,
            duration: Double(step.duration) / 1000)
    }
}

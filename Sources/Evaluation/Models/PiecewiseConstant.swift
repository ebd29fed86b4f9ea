// Rates that change with time.

/// A rate that keeps its value from one change to the next, and the last one for ever: bytes a second over
/// milliseconds.
public struct PiecewiseConstant: Sendable, Hashable, Codable {
    public struct Step: Sendable, Hashable, Codable {
        /// Milliseconds since the migration began.
        public var start: Double
        /// Bytes a second, 0 or more.
        public var rate: Double

        public init(start: Double, rate: Double) { (self.start, self.rate) = (start, rate) }
    }

    /// In ascending order of `start`, the first one at 0.
    public let steps: [Step]

    /// A rate that does not change.
    public init(_ rate: Double) { steps = [Step(start: 0, rate: rate)] }

    /// nil unless the first step starts at 0, each later one after the one before, and all rates are finite, 0 or more.
    public init?(steps: [Step]) {
        guard steps.first?.start == 0, zip(steps, steps.dropFirst()).allSatisfy({ $0.start < $1.start }),
            steps.allSatisfy({ $0.rate >= 0 && $0.rate.isFinite && $0.start.isFinite })
        else { return nil }
        self.steps = steps
    }

    /// The bytes that add up between two instants in milliseconds.
    public func integral(from start: Double, to end: Double) -> Double {
        var sum = 0.0
        for (index, step) in steps.enumerated() {
            let until = index + 1 < steps.count ? steps[index + 1].start : .infinity
            let span = min(end, until) - max(start, step.start)
            if span > 0, step.rate > 0 { sum += step.rate * span / 1000 }
        }
        return sum
    }

    /// The instant in milliseconds at which so many bytes have added up since `start`; infinity if they never do.
    public func instant(of bytes: Double, since start: Double) -> Double {
        guard bytes > 0 else { return start }
        var (left, now) = (bytes, start)
        for (index, step) in steps.enumerated() {
            let until = index + 1 < steps.count ? steps[index + 1].start : .infinity
            guard now < until else { continue }
            if step.rate > 0 {
                let end = now + left / step.rate * 1000
                if end <= until { return end }
                left -= step.rate * (until - now) / 1000
            }
            now = until
        }
        return .infinity
    }
}

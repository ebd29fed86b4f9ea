// What a user noticed where the device changed its access point: time without answers, whatever the cause.

extension ProbeRecording {
    /// Gaps between answers, and the usual one: the median.
    private func gaps() -> (all: [(from: Int64, to: Int64)], usual: Int64) {
        let answers = requests.lazy.map(\.answered).filter { $0 > 0 }.sorted()
        let all = zip(answers, answers.dropFirst()).map { (from: $0, to: $1) }
        let lengths = all.map { $0.to - $0.from }.sorted()
        return (all, lengths.isEmpty ? 0 : lengths[lengths.count / 2])
    }

    private static func touches(_ gap: (from: Int64, to: Int64), _ stretch: ClosedRange<Int64>) -> Bool {
        gap.to >= stretch.lowerBound && gap.from <= stretch.upperBound + aftermath
    }

    /// The user interruption, milliseconds: the largest gap that touches each of the stretches (a device without a
    /// link, a container that is frozen), minus the usual gap; where one gap touches several it counts once.
    public func interruption(_ stretches: [ClosedRange<Int64>]) -> Double {
        let (all, usual) = gaps()
        var found: [Int64: Int64] = [:]
        for stretch in stretches {
            let largest = all.filter { Self.touches($0, stretch) }.max { $0.to - $0.from < $1.to - $1.from }
            if let largest { found[largest.from] = max(0, largest.to - largest.from - usual) }
        }
        return Double(found.values.reduce(0, +)) / 1e6
    }

    /// The largest gap between two answers that touches none of the stretches, milliseconds.
    public func largestGap(outside stretches: [ClosedRange<Int64>]) -> Double {
        let others = gaps().all.filter { gap in !stretches.contains { Self.touches(gap, $0) } }
        return Double(others.map { $0.to - $0.from }.max() ?? 0) / 1e6
    }
}

extension ClosedRange<Int64> {
    /// An outage, and the time until TCP has found out by its timer that the link is back: 200 ms after the last
    /// attempt, or as long again as the outage was.
    var untilTimersFired: Self { lowerBound...upperBound + (upperBound - lowerBound) + 300_000_000 }
}

extension [ClosedRange<Int64>] {
    /// In order, those that overlap as one.
    var merged: Self {
        sorted { $0.lowerBound < $1.lowerBound }.reduce(into: []) { result, range in
            if let last = result.last, range.lowerBound <= last.upperBound {
                result[result.count - 1] = last.lowerBound...Swift.max(last.upperBound, range.upperBound)
            } else {
                result.append(range)
            }
        }
    }
}

// MiGrror against pre-copy, point by point: where it loses, where it wins, where nothing tells them apart.

/// Two techniques at points that are otherwise alike.
struct Comparison {
    struct Pair {
        /// What is alike, in the plan's words, as far as it varies.
        var place: String
        var first: [Double]
        var second: [Double]
        /// first - second, of the medians.
        var difference: Double { Sample(first).median - Sample(second).median }
        var interval: ConfidenceInterval?
        var test: RankTest?
    }
    enum Verdict { case worse, better, open }

    var column: String
    var name: String
    var unit: String
    var pairs: [Pair]

    static func verdict(_ pair: Pair) -> Verdict {
        guard let interval = pair.interval else { return .open }
        return interval.lower > 0 ? .worse : interval.upper < 0 ? .better : .open
    }

    /// - Parameter answer: of an experiment whose varied parameters mean something to both.
    init(_ answer: Answer, _ first: String, _ second: String, column: String, name: String, unit: String, x: Parameter?)
    {
        (self.column, self.name, self.unit) = (column, name, unit)
        pairs = answer.groups.filter { $0.series == first || $0.series.hasPrefix(first + " ·") }.compactMap { group in
            let rest = group.series.dropFirst(first.count)
            guard let other = answer.groups.first(where: { $0.series == second + rest && $0.xText == group.xText })
            else { return nil }
            let place = (x.map { "\($0.rawValue) \(group.xText)" } ?? "") + rest
            return Pair(
                place: place, first: group.values, second: other.values,
                interval: Bootstrap(resamples: 2000).differenceOfMedians(group.values, other.values),
                test: RankTest(group.values, other.values))
        }
    }

    /// The places with this verdict, a row each.
    func rows(_ verdict: Verdict) -> [[String]] {
        pairs.filter { Self.verdict($0) == verdict }.map { pair in
            let interval = pair.interval.map { " [\(measured($0.lower)), \(measured($0.upper))]" } ?? ""
            return [
                name, pair.place, "\(measured(Sample(pair.first).median)) \(unit)",
                "\(measured(Sample(pair.second).median)) \(unit)", measured(pair.difference) + interval,
                "\(pair.first.count)+\(pair.second.count)",
            ]
        }
    }
}

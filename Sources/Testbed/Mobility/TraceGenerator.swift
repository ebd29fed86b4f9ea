// Made-up traces that a seed repeats: users on the streets between access points.

/// Users who drive from crossing to crossing of a grid of streets: each draws a crossing, goes there by streets alone
/// (in one direction, then in the other one), draws the next. The speed is drawn anew on every street.
public struct TraceGenerator: Sendable, Hashable {
    /// Distance of the access points of the published scenario, metres.
    public static let spacing = 1334.0

    /// Where streets are, metres.
    public var xs: ClosedRange<Double>
    public var ys: ClosedRange<Double>
    /// From one street to the next, metres.
    public var block = spacing / 4
    /// Metres a second.
    public var speed: ClosedRange<Double>
    /// Seconds from one sample to the next.
    public var step = 1.0
    public var seed: UInt64

    /// - Parameter sites: access points; streets reach half a spacing beyond them.
    public init(around sites: [CellSite], speed: ClosedRange<Double> = 8...14, seed: UInt64) {
        let (xs, ys) = (sites.map(\.x), sites.map(\.y))
        let margin = Self.spacing / 2
        self.xs = (xs.min() ?? 0) - margin...(xs.max() ?? 0) + margin
        self.ys = (ys.min() ?? 0) - margin...(ys.max() ?? 0) + margin
        (self.speed, self.seed) = (speed, seed)
    }

    /// Access points on a grid, row by row from the south-west.
    public static func grid(columns: Int, rows: Int) -> [CellSite] {
        (0..<rows).flatMap { row in
            (0..<columns).map { column in
                CellSite(
                    name: "ap-\(row * columns + column + 1)", x: Double(column) * spacing, y: Double(row) * spacing)
            }
        }
    }

    /// Traces "user-1", "user-2" ... from 0 on. A user's way does not depend on how many there are.
    ///
    /// - Parameter duration: seconds, at least one step.
    public func traces(users: Int, duration: Double) -> [MobilityTrace] {
        (1...max(1, users)).map { number in
            var random = SeededRandom(seed: seed &+ UInt64(number) &* 0x5851_F42D_4C95_7F2D)
            return MobilityTrace(user: "user-\(number)", samples: samples(duration, &random))
        }
    }

    private func samples(_ duration: Double, _ random: inout SeededRandom) -> [MobilitySample] {
        var (x, y) = crossing(&random)
        var streets: [(x: Double, y: Double)] = []
        var heading = 0.0
        var pace = Double.random(in: speed, using: &random)
        var samples: [MobilitySample] = []
        for index in 0...max(1, Int(duration / step)) {
            if index > 0 {
                var metres = pace * step
                while metres > 0 {
                    if streets.isEmpty { streets = way(from: (x, y), &random) }
                    let goal = streets[0]
                    let rest = abs(goal.x - x) + abs(goal.y - y)
                    heading = goal.x > x ? 90 : goal.x < x ? 270 : goal.y < y ? 180 : 0
                    let part = min(metres, rest)
                    if rest > 0 { (x, y) = (x + (goal.x - x) / rest * part, y + (goal.y - y) / rest * part) }
                    metres -= part
                    if part == rest {
                        (x, y) = goal
                        streets.removeFirst()
                        pace = Double.random(in: speed, using: &random)
                    }
                }
            }
            samples.append(MobilitySample(time: Double(index) * step, x: x, y: y, heading: heading, speed: pace))
        }
        return samples
    }

    /// The ends of the streets to a crossing that is drawn, which is another one than this.
    private func way(from here: (x: Double, y: Double), _ random: inout SeededRandom) -> [(x: Double, y: Double)] {
        while true {
            let goal = crossing(&random)
            if goal == here { continue }
            let corner = Bool.random(using: &random) ? (goal.x, here.y) : (here.x, goal.y)
            return [corner, goal].filter { $0 != here }
        }
    }

    private func crossing(_ random: inout SeededRandom) -> (x: Double, y: Double) {
        func draw(_ range: ClosedRange<Double>, _ random: inout SeededRandom) -> Double {
            let streets = Int((range.upperBound - range.lowerBound) / block)
            return range.lowerBound + Double(Int.random(in: 0...streets, using: &random)) * block
        }
        return (draw(xs, &random), draw(ys, &random))
    }
}

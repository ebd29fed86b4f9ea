// Random shapes of programs: which kinds of state one holds at once.
import Testbed

/// What one program is made of, and the seed of all that it does.
struct Shape: Sendable, CustomStringConvertible {
    var number: Int
    var seed: UInt64
    var kinds: [String]
    /// A kind that a migration refuses until the program gives it up.
    var refused: String?

    var allKinds: [String] { kinds + (refused.map { [$0] } ?? []) }
    /// As `APUS_SHAPE` takes it, to run this one alone.
    var description: String { "\(seed) \(allKinds.joined(separator: ","))" }
}

/// Two kinds that one program holds at once.
struct KindPair: Hashable {
    let one, other: String
    init(_ a: String, _ b: String) { (one, other) = (min(a, b), max(a, b)) }
}

/// Makes shapes of 3 to 6 kinds. Every pair of kinds meets once before any number of them meets again.
struct ShapeGenerator {
    private let kinds, refused: [String]
    private let pairs: Set<KindPair>
    private var random: SeededRandom
    private var number = 0
    /// Pairs that have not met in this round.
    private(set) var open: Set<KindPair>
    /// Pairs that have met.
    private(set) var met: Set<KindPair> = []
    /// Whether each pair has met at least once.
    var isComplete: Bool { met == pairs }

    init(seed: UInt64, kinds: [String], refused: [String]) {
        (self.kinds, self.refused) = (kinds, refused)
        random = SeededRandom(seed: seed)
        pairs = Set(kinds.flatMap { kind in kinds.filter { $0 != kind }.map { KindPair(kind, $0) } })
        open = pairs
    }

    mutating func next() -> Shape {
        if open.isEmpty { open = pairs }
        let count = Int.random(in: 3...6, using: &random)
        // In order: a set's own order differs from run to run.
        let first = open.sorted { ($0.one, $0.other) < ($1.one, $1.other) }.randomElement(using: &random)!
        var chosen = [first.one, first.other]
        while chosen.count < min(count, kinds.count) { chosen.append(best(with: chosen)) }
        for kind in chosen { for other in chosen where kind != other { meet(KindPair(kind, other)) } }
        number += 1
        return Shape(
            number: number, seed: random.next() >> 16, kinds: chosen.shuffled(using: &random),
            refused: number % 4 == 0 ? refused.randomElement(using: &random) : nil)
    }

    /// One of the kinds that would meet the most of the chosen ones for the first time.
    private mutating func best(with chosen: [String]) -> String {
        let others = kinds.filter { !chosen.contains($0) }
        let gains = others.map { kind in chosen.count { open.contains(KindPair(kind, $0)) } }
        let most = gains.max()!
        return zip(others, gains).filter { $0.1 == most }.map(\.0).randomElement(using: &random)!
    }

    private mutating func meet(_ pair: KindPair) {
        open.remove(pair)
        met.insert(pair)
    }
}

// What a client of a key-value store asks for: YCSB's core workloads A, B and C (Cooper et al. 2010).

import Glibc
import LinuxKernel

/// How many requests read; the others write a whole record anew.
public enum KeyValueMix: String, Codable, Sendable, CaseIterable {
    /// Half of them: a session store.
    case a
    /// 95 %: photo tags.
    case b
    /// All: profiles.
    case c

    /// Of 1.
    var reads: Double {
        switch self {
        case .a: 0.5
        case .b: 0.95
        case .c: 1
        }
    }
}

/// Which keys are asked for.
public enum AccessDistribution: String, Codable, Sendable, CaseIterable {
    /// YCSB's scrambled zipfian: a few, spread over all, are met much more often than the others.
    case zipf
    case uniform
    /// One after the other, again and again.
    case sequential
}

/// Chooses keys. The same seed gives the same keys.
struct KeyChooser {
    private let count: UInt64
    private let distribution: AccessDistribution
    private var state: UInt64
    private var last: UInt64 = 0

    /// YCSB draws ranks from this many items, whatever the number of keys, and hashes them onto the keys.
    static let items = 1e10
    static let exponent = 0.99
    private static let zeta = zeta(items, exponent)
    private static let alpha = 1 / (1 - exponent)
    private static let eta = (1 - pow(2 / items, 1 - exponent)) / (1 - (1 + pow(0.5, exponent)) / zeta)

    init(_ distribution: AccessDistribution, count: Int, seed: UInt64) {
        (self.distribution, self.count) = (distribution, UInt64(max(1, count)))
        state = ValueGenerator.mix(seed &+ 1)
    }

    /// A key's number, from 0.
    mutating func next() -> Int {
        switch distribution {
        case .uniform: Int(word().multipliedFullWidth(by: count).high)
        case .zipf: Int(Self.hash(rank()) % count)
        case .sequential: following()
        }
    }

    private mutating func following() -> Int {
        last = (last + 1) % count
        return Int(last)
    }

    /// A number of 0..<1.
    mutating func chance() -> Double { Double(word() >> 11) * 0x1p-53 }

    private mutating func word() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        return ValueGenerator.mix(state)
    }

    /// Gray et al., "Quickly generating billion-record synthetic databases" (1994).
    private mutating func rank() -> UInt64 {
        let chance = chance()
        let at = chance * Self.zeta
        if at < 1 { return 0 }
        if at < 1 + pow(0.5, Self.exponent) { return 1 }
        return UInt64(Self.items * pow(Self.eta * chance - Self.eta + 1, Self.alpha))
    }

    /// FNV-1a of the number's eight bytes, without its sign.
    static func hash(_ number: UInt64) -> UInt64 {
        let bytes = (0..<8).lazy.map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
        return Int64(bitPattern: FNV1a.hash64(bytes)).magnitude
    }

    /// The sum of 1 / i^exponent for i of 1...count: the first terms one by one, the rest by Euler and Maclaurin.
    static func zeta(_ count: Double, _ exponent: Double) -> Double {
        let exact = min(count, 1000)
        var sum = 0.0
        for i in 1...Int(exact) { sum += pow(Double(i), -exponent) }
        guard count > exact else { return sum }
        sum += (pow(count, 1 - exponent) - pow(exact, 1 - exponent)) / (1 - exponent)
        sum += (pow(count, -exponent) - pow(exact, -exponent)) / 2
        return sum + exponent / 12 * (pow(exact, -exponent - 1) - pow(count, -exponent - 1))
    }
}

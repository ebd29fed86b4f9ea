/// Makes values from a seed: what a server was filled with is known without keeping a copy.
///
/// Bytes come from SplitMix64 (Steele, Lea and Flood 2014), little-endian, its state starting at
/// `mix(seed) ^ mix(index + 1)`. Of every 64 bytes the first `entropy × 64` are generator output, the rest is the
/// letter `a`: with entropy 1 (the default) a value is incompressible, with 0.5 a byte-oriented compressor reaches
/// about 2 : 1. A page then holds several values, none equal to another.
public struct ValueGenerator: Sendable, Codable {
    public var seed: UInt64
    /// Bytes a value.
    public var size: Int
    /// Share of incompressible bytes, 0...1.
    public var entropy: Double

    /// The default size fills an allocation of 4,096 bytes in redis (value, header, terminator) nearly whole.
    public init(seed: UInt64 = 1, size: Int = 4_000, entropy: Double = 1) {
        self.seed = seed
        self.size = size
        self.entropy = entropy
    }

    public var description: String {
        "SplitMix64, seed \(seed), \(size) bytes a value, \(Int(entropy * 100)) % incompressible"
    }

    /// The value of an index.
    public func value(_ index: Int) -> [UInt8] {
        var state = Self.mix(seed) ^ Self.mix(UInt64(index) + 1)
        let random = max(0, min(64, Int((entropy * 64).rounded())))
        return [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            var word: UInt64 = 0
            for at in 0..<size {
                let place = at & 63
                if place < random {
                    if place & 7 == 0 {
                        state &+= 0x9E37_79B9_7F4A_7C15
                        word = Self.mix(state)
                    }
                    buffer[at] = UInt8(truncatingIfNeeded: word >> UInt64((place & 7) * 8))
                } else {
                    buffer[at] = 0x61
                }
            }
            count = size
        }
    }

    /// SplitMix64's finaliser.
    static func mix(_ value: UInt64) -> UInt64 {
        var z = value
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

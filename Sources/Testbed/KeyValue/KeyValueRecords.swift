// What a key holds: its own number, the write's number, and bytes that follow from both.
import Glibc

/// Makes and recognises values, so that a client knows of each one what write it comes from without keeping a copy.
struct KeyValueRecords {
    /// Bytes a value: a multiple of 8, at least 24.
    let size: Int

    /// YCSB's record (10 fields of 100 bytes) in one field.
    init(size: Int = 1024) { self.size = max(24, size / 8 * 8) }

    static func key(_ index: Int) -> String { "user\(index)" }

    /// Appends the value that a write gives to a key.
    func append(_ key: Int, _ version: UInt32, to bytes: inout [UInt8]) {
        append(UInt64(key), to: &bytes)
        append(UInt64(version), to: &bytes)
        for place in 0..<(size / 8 - 2) { append(Self.word(key, version, place), to: &bytes) }
    }

    func value(_ key: Int, _ version: UInt32) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(size)
        append(key, version, to: &bytes)
        return bytes
    }

    /// The number of the write that a value comes from; nil: no write of this key ever made it.
    func version(_ value: [UInt8], of key: Int) -> UInt32? {
        guard value.count == size else { return nil }
        return value.withUnsafeBytes { bytes in
            func word(_ place: Int) -> UInt64 {
                UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: place * 8, as: UInt64.self))
            }
            guard word(0) == UInt64(key), let version = UInt32(exactly: word(1)) else { return nil }
            for place in 0..<(size / 8 - 2) where word(place + 2) != Self.word(key, version, place) { return nil }
            return version
        }
    }

    private static func word(_ key: Int, _ version: UInt32, _ place: Int) -> UInt64 {
        ValueGenerator.mix(
            UInt64(key) &* 0x9E37_79B9_7F4A_7C15 ^ UInt64(version) << 32 ^ UInt64(place) &* 0xD1B5_4A32_D192_ED03)
    }

    private func append(_ word: UInt64, to bytes: inout [UInt8]) {
        withUnsafeBytes(of: word.littleEndian) { bytes.append(contentsOf: $0) }
    }
}

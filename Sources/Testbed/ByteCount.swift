/// A number of bytes as people write it: "256MiB", "2GiB", "4096".
public struct ByteCount: Sendable, Hashable, CustomStringConvertible {
    public let bytes: UInt64
    public init(_ bytes: UInt64) { self.bytes = bytes }

    private static let units: [(String, UInt64)] = [("gib", 1 << 30), ("mib", 1 << 20), ("kib", 1 << 10), ("", 1)]

    /// nil when the text is not a number of at least 1 byte with one of the units KiB, MiB, GiB or none.
    public init?(_ text: String) {
        let text = text.lowercased()
        for (unit, factor) in Self.units where text.hasSuffix(unit) {
            guard let value = Double(text.dropLast(unit.count)), value * Double(factor) >= 1,
                value * Double(factor) < 1e15
            else { return nil }
            bytes = UInt64(value * Double(factor))
            return
        }
        return nil
    }

    public var description: String {
        for (unit, factor) in [("GiB", UInt64(1) << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        where bytes % factor == 0 && bytes > 0 { return "\(bytes / factor) \(unit)" }
        return "\(bytes) bytes"
    }
}

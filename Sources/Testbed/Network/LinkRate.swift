/// A link's rate, as tc(8) writes it: "1gbit", "100mbit", "5500kbit", "unlimited".
public struct LinkRate: Sendable, Hashable, Codable, CustomStringConvertible {
    /// nil: unlimited.
    public let bitsPerSecond: UInt64?
    public static let unlimited = LinkRate(bitsPerSecond: nil)

    public init(bitsPerSecond: UInt64?) { self.bitsPerSecond = bitsPerSecond }

    /// nil when the text is not a rate of at least 1 kbit/s.
    public init?(_ text: String) {
        let text = text.lowercased()
        if text == "unlimited" {
            self = .unlimited
            return
        }
        for (unit, factor) in [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3)] where text.hasSuffix(unit) {
            guard let value = Double(text.dropLast(unit.count)), (1000..<1e13).contains(value * factor) else {
                return nil
            }
            bitsPerSecond = UInt64(value * factor)
            return
        }
        return nil
    }

    public var description: String {
        guard let bitsPerSecond else { return "unlimited" }
        for (unit, factor) in [("gbit", UInt64(1_000_000_000)), ("mbit", 1_000_000)] where bitsPerSecond % factor == 0 {
            return "\(bitsPerSecond / factor)\(unit)"
        }
        return "\(bitsPerSecond / 1000)kbit"
    }

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let rate = LinkRate(text) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a rate: \(text)")
        }
        self = rate
    }
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

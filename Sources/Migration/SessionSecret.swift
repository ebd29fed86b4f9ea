// What makes a host a party of a migration.

/// A number that only the two hosts of a migration know: it goes over in the offer and stands in both journals. Whoever
/// asks what became of the migration has to show it. On plain TCP it keeps out strangers, not those who listen.
struct SessionSecret: Codable, Sendable, CustomStringConvertible {
    private static let size = 32
    let bytes: [UInt8]

    /// A new one.
    init() {
        var generator = SystemRandomNumberGenerator()
        bytes = (0..<Self.size).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }
    /// Nil unless there are as many bytes as a secret has.
    init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == Self.size else { return nil }
        self.bytes = [UInt8](bytes)
    }
    /// From its digits.
    init?(_ text: String) {
        let digits = Array(text.utf8)
        guard digits.count == 2 * Self.size else { return nil }
        let bytes = stride(from: 0, to: digits.count, by: 2).compactMap {
            UInt8(String(decoding: digits[$0...$0 + 1], as: UTF8.self), radix: 16)
        }
        self.init(bytes)
    }

    /// In hexadecimal digits.
    var description: String { bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }

    /// Takes as long for a wrong one as for the right one.
    func matches(_ other: SessionSecret) -> Bool {
        zip(bytes, other.bytes).reduce(UInt8(0)) { $0 | $1.0 ^ $1.1 } == 0
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let secret = SessionSecret(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a session's secret")
        }
        self = secret
    }
    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

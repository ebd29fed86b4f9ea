// SHA-256, by libcrypto: what names a file's content and a bundle.
import COpenSSL

/// A SHA-256 digest: 32 bytes.
public struct Digest: Hashable, Sendable, Comparable, CustomStringConvertible {
    // Four words instead of an array: a manifest holds thousands.
    private let words: (UInt64, UInt64, UInt64, UInt64)

    /// The size of a digest in bytes.
    public static let size = 32

    /// Takes 32 bytes; nil for any other number of them.
    public init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == Digest.size else { return nil }
        var word: [UInt64] = [0, 0, 0, 0]
        for (index, byte) in bytes.enumerated() { word[index / 8] = word[index / 8] << 8 | UInt64(byte) }
        words = (word[0], word[1], word[2], word[3])
    }

    /// Reads 64 hexadecimal digits; nil for anything else.
    public init?(hexadecimal text: some StringProtocol) {
        let digits = Array(text.utf8)
        guard digits.count == 64 else { return nil }
        var bytes: [UInt8] = []
        for index in stride(from: 0, to: 64, by: 2) {
            guard let byte = UInt8(String(decoding: digits[index...(index + 1)], as: UTF8.self), radix: 16) else {
                return nil
            }
            bytes.append(byte)
        }
        self.init(bytes)
    }

    /// The digest of some bytes.
    public init(of bytes: some Sequence<UInt8>) {
        var hasher = Hasher()
        hasher.update(Array(bytes))
        self = hasher.finish()
    }

    public var bytes: [UInt8] {
        [words.0, words.1, words.2, words.3].flatMap { word in
            (0..<8).map { UInt8(truncatingIfNeeded: word >> (56 - 8 * UInt64($0))) }
        }
    }

    /// 64 hexadecimal digits.
    public var description: String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }

    public static func == (a: Digest, b: Digest) -> Bool { a.words == b.words }
    public static func < (a: Digest, b: Digest) -> Bool { a.words < b.words }
    public func hash(into hasher: inout Swift.Hasher) {
        hasher.combine(words.0)
        hasher.combine(words.1)
    }

    /// Computes a digest piece by piece.
    public struct Hasher: ~Copyable {
        private let context: OpaquePointer

        public init() {
            context = EVP_MD_CTX_new()!
            // libcrypto's own SHA-256 only fails for want of memory.
            precondition(EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1, "libcrypto has no SHA-256")
        }
        deinit { EVP_MD_CTX_free(context) }

        public mutating func update(_ bytes: UnsafeRawBufferPointer) {
            precondition(EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) == 1)
        }
        public mutating func update(_ bytes: [UInt8]) { bytes.withUnsafeBytes { update($0) } }

        /// The digest of everything so far. Called once, last. Not `consuming`: a closure that updates the hasher keeps
        /// it from being consumed in builds without optimisation.
        public mutating func finish() -> Digest {
            var bytes = [UInt8](repeating: 0, count: Digest.size)
            precondition(EVP_DigestFinal_ex(context, &bytes, nil) == 1)
            return Digest(bytes)!
        }
    }
}

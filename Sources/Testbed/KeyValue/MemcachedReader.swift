// memcached's text protocol: the replies to get (of one key) and set.
import Glibc

/// Takes replies out of a stream of bytes that arrives in pieces.
struct MemcachedReader {
    private var bytes: [UInt8] = []
    private var head = 0

    /// A line that is longer, or a value that is larger, is an error of the stream.
    private static let longestLine = 2048
    private static let largestValue = 1 << 20

    mutating func append(_ piece: UnsafeRawBufferPointer) {
        if head > 0 && (head == bytes.count || head > 1 << 20) {
            bytes.removeFirst(head)
            head = 0
        }
        bytes.append(contentsOf: piece)
    }

    /// The next reply, nil while it is incomplete.
    mutating func next() throws -> KeyValueReply? {
        guard let (line, after) = try line(from: head) else { return nil }
        guard line.hasPrefix("VALUE ") else {
            head = after
            switch line {
            case "STORED": return .stored
            case "END": return .missing
            default: return .other(line)
            }
        }
        // VALUE key flags bytes, the bytes, END.
        let words = line.split(separator: " ")
        guard words.count == 4, let count = Int(words[3]), (0...Self.largestValue).contains(count) else {
            throw RESPReader.Malformed()
        }
        guard after + count + 2 <= bytes.count else { return nil }
        guard let (end, next) = try self.line(from: after + count + 2) else { return nil }
        guard bytes[after + count] == 13, bytes[after + count + 1] == 10, end == "END" else {
            throw RESPReader.Malformed()
        }
        head = next
        return .value(Array(bytes[after..<after + count]))
    }

    /// A line without its end, and where the next one begins.
    private func line(from start: Int) throws -> (String, Int)? {
        guard start < bytes.count else { return nil }
        guard let end = bytes[start...].prefix(Self.longestLine).firstIndex(of: 13) else {
            if bytes.count - start >= Self.longestLine { throw RESPReader.Malformed() }
            return nil
        }
        guard end + 1 < bytes.count else { return nil }
        return (String(decoding: bytes[start..<end], as: UTF8.self), end + 2)
    }
}

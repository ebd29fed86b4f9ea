// The redis serialisation protocol, version 2: commands out, replies in.
import Glibc

/// A reply of a redis server.
enum RESPReply: Equatable, CustomStringConvertible {
    case simple(String)
    case error(String)
    case integer(Int64)
    case bulk([UInt8])
    case null
    case array([RESPReply])

    var description: String {
        switch self {
        case .simple(let text), .error(let text): "\"\(text)\""
        case .integer(let value): "\(value)"
        case .bulk(let bytes): "\"\(String(decoding: bytes.prefix(60), as: UTF8.self))\""
        case .null: "nothing"
        case .array(let items): "\(items)"
        }
    }
}

/// Appends a command as an array of bulk strings.
struct RESPCommand {
    static func append(_ parts: [[UInt8]], to bytes: inout [UInt8]) {
        header("*", parts.count, to: &bytes)
        for part in parts {
            header("$", part.count, to: &bytes)
            bytes += part
            bytes += [13, 10]
        }
    }
    static func append(_ parts: String..., to bytes: inout [UInt8]) { append(parts.map { Array($0.utf8) }, to: &bytes) }

    private static func header(_ kind: Unicode.Scalar, _ count: Int, to bytes: inout [UInt8]) {
        bytes.append(UInt8(ascii: kind))
        bytes += Array(String(count).utf8)
        bytes += [13, 10]
    }
}

/// Takes replies out of a stream of bytes that arrives in pieces.
struct RESPReader {
    private var bytes: [UInt8] = []
    private var head = 0

    struct Malformed: Error {}
    /// No reply of the commands used here comes near this; a longer one is an error of the stream.
    static let limit = 64 << 20

    mutating func append(_ piece: UnsafeRawBufferPointer) {
        if head > 0 && (head == bytes.count || head > 1 << 20) {
            bytes.removeFirst(head)
            head = 0
        }
        bytes.append(contentsOf: piece)
    }

    /// The next reply, nil while it is incomplete.
    mutating func next() throws -> RESPReply? {
        var at = head
        guard let reply = try parse(&at) else { return nil }
        head = at
        return reply
    }

    /// Passes over the next reply that is not an array, without making a value of it: nil while it is incomplete, else
    /// whether it was an error. For load, where only the time of the answer matters.
    mutating func skip() throws -> Bool? {
        guard head < bytes.count else { return nil }
        let kind = bytes[head]
        guard kind == UInt8(ascii: "$") || kind == UInt8(ascii: "*") else {
            var at = head + 1
            guard line(&at) != nil else { return nil }
            head = at
            return kind == UInt8(ascii: "-")
        }
        guard kind == UInt8(ascii: "$") else { throw Malformed() }
        var at = head + 1
        guard let range = line(&at) else { return nil }
        guard bytes[range.lowerBound] != UInt8(ascii: "-") else {
            head = at
            return false
        }
        var count = 0
        for byte in bytes[range] {
            guard byte >= 48, byte <= 57, count < Self.limit else { throw Malformed() }
            count = count * 10 + Int(byte - 48)
        }
        guard at + count + 2 <= bytes.count else { return nil }
        head = at + count + 2
        return false
    }

    private func line(_ at: inout Int) -> Range<Int>? {
        guard let end = bytes[at...].firstIndex(of: 13), end + 1 < bytes.count else { return nil }
        defer { at = end + 2 }
        return at..<end
    }

    private func parse(_ at: inout Int) throws -> RESPReply? {
        guard at < bytes.count else { return nil }
        let kind = bytes[at]
        var after = at + 1
        guard let range = line(&after) else { return nil }
        var text: String { String(decoding: bytes[range], as: UTF8.self) }
        switch kind {
        case UInt8(ascii: "+"):
            at = after
            return .simple(text)
        case UInt8(ascii: "-"):
            at = after
            return .error(text)
        case UInt8(ascii: ":"):
            guard let value = Int64(text) else { throw Malformed() }
            at = after
            return .integer(value)
        case UInt8(ascii: "$"):
            guard let count = Int(text), (-1...Self.limit).contains(count) else { throw Malformed() }
            if count == -1 {
                at = after
                return .null
            }
            guard after + count + 2 <= bytes.count else { return nil }
            at = after + count + 2
            return .bulk(Array(bytes[after..<after + count]))
        case UInt8(ascii: "*"):
            guard let count = Int(text), (-1...1_000_000).contains(count) else { throw Malformed() }
            if count == -1 {
                at = after
                return .null
            }
            var items: [RESPReply] = []
            for _ in 0..<count {
                guard let item = try parse(&after) else { return nil }
                items.append(item)
            }
            at = after
            return .array(items)
        default:
            throw Malformed()
        }
    }
}

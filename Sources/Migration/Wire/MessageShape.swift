// How much memory a message will take, reckoned from its bytes before it is decoded: two bytes on the wire can stand
// for half a kilobyte in memory, so that a frame of an allowed length could take all there is.

/// Which fields of a message are messages themselves, and which hold many numbers.
struct MessageShape: Sendable {
    /// Shapes of the messages in it by their fields' numbers. A map is a message with its value in field 2.
    var messages: [UInt64: MessageShape] = [:]
    /// Fields with packed numbers.
    var numbers: Set<UInt64> = []

    static let plain = MessageShape()
    static func map(_ value: MessageShape) -> MessageShape { MessageShape(messages: [2: value]) }

    /// More than the objects of a message, and of a byte string, take.
    private static let messageBytes = 640, stringBytes = 32

    /// Bytes, about, that the message takes in memory.
    ///
    /// - Throws: where the bytes are no message.
    func weight(of bytes: UnsafeRawBufferPointer) throws -> Int {
        var reader = WireReader(bytes), weight = Self.messageBytes
        while !reader.isAtEnd {
            let tag = try reader.varint()
            switch tag & 7 {
            case 0:
                _ = try reader.varint()
                weight += 8
            case 1: try reader.skip(8)
            case 5: try reader.skip(4)
            case 2:
                let content = try reader.content()
                if let shape = messages[tag >> 3] {
                    weight += try shape.weight(of: content)
                } else {
                    weight += Self.stringBytes + content.count * (numbers.contains(tag >> 3) ? 8 : 1)
                }
            default: throw MigrationError.protocolViolation("a message with a field of type \(tag & 7)")
            }
        }
        return weight
    }
}

/// The outermost layer of protobuf's coding.
private struct WireReader {
    private let bytes: UnsafeRawBufferPointer
    private var at = 0
    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var isAtEnd: Bool { at == bytes.count }
    private static let cutShort = MigrationError.protocolViolation("a message that is cut short")

    mutating func varint() throws -> UInt64 {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 70, by: 7) {
            guard at < bytes.count else { throw Self.cutShort }
            let byte = bytes[at]
            at += 1
            value |= UInt64(byte & 0x7f) << shift
            if byte < 0x80 { return value }
        }
        throw MigrationError.protocolViolation("a message with a number of more than ten bytes")
    }
    mutating func skip(_ count: Int) throws {
        guard count <= bytes.count - at else { throw Self.cutShort }
        at += count
    }
    mutating func content() throws -> UnsafeRawBufferPointer {
        let count = try varint()
        guard count <= UInt64(bytes.count - at) else { throw Self.cutShort }
        defer { at += Int(count) }
        return UnsafeRawBufferPointer(rebasing: bytes[at..<at + Int(count)])
    }
}

// Messages of the edge services: a length that includes the header, a kind, the content; little-endian.

/// A message while it is written.
struct ServiceMessage {
    /// Length (4 bytes), kind (2), nothing (2).
    static let headerSize = 8
    private(set) var bytes: [UInt8]

    init(kind: UInt16) {
        bytes = [8, 0, 0, 0]
        append(kind)
        append(UInt16(0))
    }

    mutating func append<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
        withUnsafeBytes(of: UInt32(bytes.count).littleEndian) { length in
            for index in 0..<4 { bytes[index] = length[index] }
        }
    }
}

extension UnsafeRawBufferPointer {
    /// The integer at an offset; the caller has looked whether there are enough bytes.
    func integer<T: FixedWidthInteger>(_ offset: Int, as type: T.Type = T.self) -> T {
        precondition(offset + MemoryLayout<T>.size <= count)
        return T(littleEndian: loadUnaligned(fromByteOffset: offset, as: T.self))
    }
}

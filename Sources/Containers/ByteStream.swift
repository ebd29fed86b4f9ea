// The byte streams that trees travel over, and the plain little-endian coding of what goes through them.
import CLinux
import Glibc
import LinuxKernel

/// A blocking stream of bytes in both directions; the migration session gives one for each tree.
public protocol ByteStream: AnyObject {
    /// Fills the whole buffer, or throws (also at the stream's end).
    func read(into buffer: UnsafeMutableRawBufferPointer) throws
    /// Writes all of the bytes; they may wait in a buffer until `flush`.
    func write(_ bytes: UnsafeRawBufferPointer) throws
    func flush() throws
}

extension ByteStream {
    public func flush() {}

    func read(_ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        try bytes.withUnsafeMutableBytes { try read(into: $0) }
        return bytes
    }
    func write(_ bytes: [UInt8]) throws { try bytes.withUnsafeBytes { try write($0) } }

    /// Bytes with their number in front.
    func writeBlock(_ bytes: [UInt8]) throws {
        var count = ByteWriter()
        count.put(UInt64(bytes.count))
        try write(count.bytes)
        try write(bytes)
    }

    /// Memory grows with what really arrives, not with what the other side says will.
    func readBlock(atMost limit: Int, what: String) throws -> [UInt8] {
        var reader = ByteReader(try read(8))
        let count = try reader.integer(UInt64.self)
        if count > UInt64(limit) { throw ContainerError("receiving \(what): \(count) bytes, more than \(limit)") }
        var bytes: [UInt8] = []
        while bytes.count < Int(count) { bytes += try read(min(1 << 20, Int(count) - bytes.count)) }
        return bytes
    }
}

/// A stream over a connected descriptor: a socket, or a pair of pipes' ends.
public final class DescriptorStream: ByteStream {
    private let input: FileDescriptor
    private let output: FileDescriptor

    public init(input: FileDescriptor, output: FileDescriptor) {
        self.input = input
        self.output = output
    }
    public convenience init(_ socket: FileDescriptor) { self.init(input: socket, output: socket) }

    public func read(into buffer: UnsafeMutableRawBufferPointer) throws {
        var filled = 0
        while filled < buffer.count {
            let n = Glibc.read(input.number, buffer.baseAddress! + filled, buffer.count - filled)
            if n < 0 && errno == EINTR { continue }
            if try checkC(n, "reading a tree's stream") == 0 { throw ContainerError("a tree's stream ended early") }
            filled += n
        }
    }

    public func write(_ bytes: UnsafeRawBufferPointer) throws { try output.write(bytes) }
}

/// A stream in memory: what is written can be read again.
public final class MemoryStream: ByteStream {
    public private(set) var bytes: [UInt8]
    private var position = 0

    public init(_ bytes: [UInt8] = []) { self.bytes = bytes }

    /// Whether all has been read.
    public var isAtEnd: Bool { position == bytes.count }

    public func read(into buffer: UnsafeMutableRawBufferPointer) throws {
        guard buffer.count <= bytes.count - position else { throw ContainerError("a tree's stream ended early") }
        bytes.withUnsafeBytes {
            buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[position...].prefix(buffer.count)))
        }
        position += buffer.count
    }
    public func write(_ more: UnsafeRawBufferPointer) { bytes.append(contentsOf: more) }
}

/// Appends integers (little-endian) and byte strings.
struct ByteWriter {
    private(set) var bytes: [UInt8] = []

    mutating func put<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
    /// With a 32-bit length in front.
    mutating func put(_ string: [UInt8]) {
        put(UInt32(string.count))
        bytes += string
    }
    mutating func put(raw: [UInt8]) { bytes += raw }
}

/// Reads what `ByteWriter` wrote, from bytes that may be anything.
struct ByteReader {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var left: Int { bytes.count - position }

    mutating func integer<T: FixedWidthInteger>(_ type: T.Type) throws(ContainerError) -> T {
        let size = MemoryLayout<T>.size
        guard left >= size else { throw ContainerError("a tree's description ends early") }
        defer { position += size }
        return bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: position, as: T.self)) }
    }

    mutating func raw(_ count: Int) throws(ContainerError) -> [UInt8] {
        guard left >= count else { throw ContainerError("a tree's description ends early") }
        defer { position += count }
        return Array(bytes[position..<(position + count)])
    }

    mutating func string(atMost limit: Int) throws(ContainerError) -> [UInt8] {
        let count = Int(try integer(UInt32.self))
        guard count <= limit else {
            throw ContainerError("a tree's description holds \(count) bytes, more than \(limit)")
        }
        return try raw(count)
    }
}

// What sender and receiver of a tree say to each other.
//
//   whole tree:  sender   "APUSTREE" version  manifest: block of entries
//                receiver needs: block of entry numbers, ascending
//                sender   the content of each
//                receiver one byte: 1, all is in place
//   changes:     sender   "APUSDIFF" version  block: removed paths, renames, entries  the content of those that say so
//
//   content:     (1  offset u64  length u32  bytes)*  0  size u64  SHA-256
//
// All integers are little-endian; a block has its length (u64) in front. The receiver takes nothing on trust.
import CLinux
import Glibc
import LinuxKernel

/// What a receiver accepts at most.
public struct TreeLimits: Sendable {
    /// Bytes of a manifest or of a list of changes.
    public var description = 256 << 20
    /// Bytes of one file, holes included.
    public var fileSize: UInt64 = 1 << 40
    public init() {}
}

/// What one transfer of a tree moved.
public struct TreeReport: Sendable, Equatable {
    /// Entries of the tree, or changed and removed ones.
    public var entries = 0
    /// Files whose content went over.
    public var contents = 0
    /// Bytes of content that went over.
    public var contentBytes: UInt64 = 0
    /// Files whose content the destination had already.
    public var cached = 0
}

enum TreeProtocol {
    static let treeMagic = Array("APUSTREE".utf8)
    static let changesMagic = Array("APUSDIFF".utf8)
    static let version: UInt16 = 1
    static let longestChunk = 1 << 20

    static func writeHeader(_ magic: [UInt8], to stream: any ByteStream) throws {
        var writer = ByteWriter()
        writer.put(raw: magic)
        writer.put(version)
        try stream.write(writer.bytes)
    }

    static func readHeader(_ magic: [UInt8], from stream: any ByteStream) throws {
        guard try stream.read(8) == magic else { throw ContainerError("this is no tree of files") }
        var reader = ByteReader(try stream.read(2))
        let other = try reader.integer(UInt16.self)
        if other != version {
            throw ContainerError("the other side sends trees as version \(other), this one takes \(version)")
        }
    }

    /// Sends a file's content as it is now; nil: an empty one, for a file that is gone meanwhile.
    ///
    /// - Returns: the digest and number of bytes sent.
    static func sendContent(
        of file: FileDescriptor?, to stream: any ByteStream, name: @autoclosure () -> String
    ) throws -> (Digest, sent: UInt64) {
        var hasher = Digest.Hasher()
        var (size, hashed, sent): (UInt64, UInt64, UInt64) = (0, 0, 0)
        if let file {
            size = try Stamp(file, name()).size
            var buffer = [UInt8](repeating: 0, count: Int(min(UInt64(longestChunk), max(size, 1))))
            reading: for extent in FileContent.extents(file, size: size) {
                var offset = extent.lowerBound
                while offset < extent.upperBound {
                    let wanted = min(Int(extent.upperBound - offset), buffer.count)
                    let count = try check(clx_pread(file.number, &buffer, wanted, offset), "reading \(name())")
                    if count == 0 { break reading }
                    hasher.updateZeros(offset - hashed)
                    var writer = ByteWriter()
                    writer.put(UInt8(1))
                    writer.put(offset)
                    writer.put(UInt32(count))
                    try stream.write(writer.bytes)
                    try buffer.withUnsafeBytes {
                        let chunk = UnsafeRawBufferPointer(rebasing: $0[..<count])
                        hasher.update(chunk)
                        try stream.write(chunk)
                    }
                    offset += UInt64(count)
                    sent += UInt64(count)
                    hashed = offset
                }
            }
        }
        hasher.updateZeros(size - hashed)
        let digest = hasher.finish()
        var writer = ByteWriter()
        writer.put(UInt8(0))
        writer.put(size)
        writer.put(raw: digest.bytes)
        try stream.write(writer.bytes)
        return (digest, sent)
    }

    /// Receives a content into an open file, which becomes exactly that.
    ///
    /// - Parameter isEmpty: the file holds nothing yet, so holes need not be punched.
    static func receiveContent(
        from stream: any ByteStream, into file: FileDescriptor, isEmpty: Bool, limits: TreeLimits,
        name: @autoclosure () -> String
    ) throws -> (Digest, received: UInt64) {
        var hasher = Digest.Hasher()
        var (position, received): (UInt64, UInt64) = (0, 0)
        func skip(to offset: UInt64) throws {
            if offset == position { return }
            hasher.updateZeros(offset - position)
            if !isEmpty {
                let result = clx_punch_hole(file.number, position, offset - position)
                if result == -EOPNOTSUPP {
                    try zero(file, position..<offset, name())
                } else {
                    try check(result, "making a hole in \(name())")
                }
            }
            position = offset
        }
        while true {
            var reader = ByteReader(try stream.read(9))
            let tag = try reader.integer(UInt8.self)
            let offset = try reader.integer(UInt64.self)
            guard tag <= 1, offset >= position, offset <= limits.fileSize else {
                throw ContainerError("receiving \(name()): its content is not valid")
            }
            if tag == 0 {
                try skip(to: offset)
                try checkC(ftruncate(file.number, Int(offset)), "setting the size of \(name())")
                let digest = hasher.finish()
                guard Digest(try stream.read(Digest.size)) == digest else {
                    throw ContainerError("receiving \(name()): its content does not have the digest it should have")
                }
                return (digest, received)
            }
            reader = ByteReader(try stream.read(4))
            let length = Int(try reader.integer(UInt32.self))
            guard length > 0, length <= longestChunk, offset + UInt64(length) <= limits.fileSize else {
                throw ContainerError("receiving \(name()): its content is not valid")
            }
            try skip(to: offset)
            let chunk = try stream.read(length)
            hasher.update(chunk)
            try FileContent.write(chunk[...], file, at: offset, name: name())
            position += UInt64(length)
            received += UInt64(length)
        }
    }

    private static func zero(_ file: FileDescriptor, _ range: Range<UInt64>, _ name: String) throws(KernelError) {
        let zeros = [UInt8](repeating: 0, count: Int(min(UInt64(range.count), 1 << 20)))
        var offset = range.lowerBound
        while offset < range.upperBound {
            let count = min(Int(range.upperBound - offset), zeros.count)
            try FileContent.write(zeros[..<count], file, at: offset, name: name)
            offset += UInt64(count)
        }
    }
}

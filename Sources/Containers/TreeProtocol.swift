// What sender and receiver of a tree say to each other.
//
//   whole tree:  sender   "APUSTREE" version  manifest: block of entries
//                receiver needs: block of entry numbers, ascending
//                sender   the content of each
//                receiver one byte: 1, all is in place
//   changes:     sender   "APUSDIFF" version  block: removed paths, renames, entries  the content of those that say so
//
//   content:     (1  offset u64  length u32  bytes | 2  offset u64  length u64)*  0  size u64  digest
//                1 is data, 2 a hole in a file of which only changed blocks are sent: the rest stays as it is. A content
//                that is sent whole has holes where it has no data. The digest is over the data sent (`ContentHasher`).
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
    static let version: UInt16 = 2
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
    /// - Returns: the digest and number of bytes sent, and the blocks' digests of a large file.
    static func sendContent(
        of file: FileDescriptor?, to stream: any ByteStream, name: @autoclosure () -> String,
        whileWorking: () throws -> Void = {}
    ) throws -> (Digest, BlockDigests?, sent: UInt64) {
        let size = try file.map { try Stamp($0, name()).size } ?? 0
        let keepsBlocks = size >= BlockDigests.smallestFile
        var hasher = ContentHasher(keepingBlocks: keepsBlocks)
        var sent: UInt64 = 0
        if let file {
            try FileContent.read(
                file, 0..<size, atMost: UInt64(longestChunk), name: name(), whileWorking: whileWorking
            ) { chunk, offset in
                hasher.update(chunk, at: offset)
                try send(chunk, at: offset, to: stream)
                sent += UInt64(chunk.count)
            }
        }
        let (digest, blocks) = hasher.finish(size: size)
        try endContent(size, digest, to: stream)
        return (digest, keepsBlocks ? blocks : nil, sent)
    }

    /// Sends the blocks of a file that differ from what the other side has.
    ///
    /// - Parameters:
    ///   - ranges: outside of which nothing has changed, in bytes.
    ///   - known: the blocks that the other side has; those that it will have when this returns.
    /// - Returns: the number of bytes sent.
    static func sendChanges(
        of file: FileDescriptor, in ranges: [Range<UInt64>], known: inout BlockDigests, to stream: any ByteStream,
        name: @autoclosure () -> String, whileWorking: () throws -> Void = {}
    ) throws -> UInt64 {
        let size = try Stamp(file, name()).size, blockSize = BlockDigests.size
        var hasher = ContentHasher()
        var sent: UInt64 = 0
        var indices: Set<UInt64> = [], extents: [Range<UInt64>] = []
        for range in ranges {
            let range = range.clamped(to: 0..<size)
            if range.isEmpty { continue }
            let blocks = range.lowerBound / blockSize...(range.upperBound - 1) / blockSize
            let whole = blocks.lowerBound * blockSize..<min(size, (blocks.upperBound + 1) * blockSize)
            for extent in FileContent.extents(file, in: whole) {
                indices.formUnion(extent.lowerBound / blockSize...(extent.upperBound - 1) / blockSize)
                extents.append(extent)
            }
            // Blocks that have become holes; looked for among those known or among those of the range, whichever are
            // fewer.
            if blocks.count < known.digests.count {
                for index in blocks where known[index] != nil { indices.insert(index) }
            } else {
                for index in known.digests.keys where blocks.contains(index) { indices.insert(index) }
            }
        }
        extents = extents.merged
        var next = 0
        for index in indices.sorted() {
            let range = index * blockSize..<min(size, (index + 1) * blockSize)
            var block = [UInt8](repeating: 0, count: range.count), data: [Range<Int>] = []
            while next < extents.count, extents[next].upperBound <= range.lowerBound { next += 1 }
            let parts = extents[next...].prefix { $0.lowerBound < range.upperBound }.map { $0.clamped(to: range) }
            try FileContent.read(
                file, extents: parts, atMost: blockSize, name: name(), whileWorking: whileWorking
            ) { chunk, offset in
                let start = Int(offset - range.lowerBound)
                block.withUnsafeMutableBytes {
                    UnsafeMutableRawBufferPointer(rebasing: $0[start...]).copyMemory(from: chunk)
                }
                data.append(start..<start + chunk.count)
            }
            let digest = block.withUnsafeBytes { ContentHasher.digest(of: $0) }
            if digest == known[index] { continue }
            known[index] = digest
            var sentTo = 0
            func hole(to next: Int) throws {
                if next > sentTo {
                    try sendHole(range.lowerBound + UInt64(sentTo), UInt64(next - sentTo), to: stream)
                }
            }
            for part in data {
                try hole(to: part.lowerBound)
                try block.withUnsafeBytes {
                    let chunk = UnsafeRawBufferPointer(rebasing: $0[part])
                    hasher.update(chunk, at: range.lowerBound + UInt64(part.lowerBound))
                    try send(chunk, at: range.lowerBound + UInt64(part.lowerBound), to: stream)
                }
                sent += UInt64(part.count)
                sentTo = part.upperBound
            }
            try hole(to: block.count)
        }
        known.cut(to: size)
        try endContent(size, hasher.finish(size: size).0, to: stream)
        return sent
    }

    private static func send(_ chunk: UnsafeRawBufferPointer, at offset: UInt64, to stream: any ByteStream) throws {
        var writer = ByteWriter()
        writer.put(UInt8(1))
        writer.put(offset)
        writer.put(UInt32(chunk.count))
        try stream.write(writer.bytes)
        try stream.write(chunk)
    }

    private static func sendHole(_ offset: UInt64, _ length: UInt64, to stream: any ByteStream) throws {
        var writer = ByteWriter()
        writer.put(UInt8(2))
        writer.put(offset)
        writer.put(length)
        try stream.write(writer.bytes)
    }

    private static func endContent(_ size: UInt64, _ digest: Digest, to stream: any ByteStream) throws {
        var writer = ByteWriter()
        writer.put(UInt8(0))
        writer.put(size)
        writer.put(raw: digest.bytes)
        try stream.write(writer.bytes)
    }

    /// How a content that is received relates to what the file holds.
    enum Reception {
        /// The file is empty.
        case new
        /// The file becomes the content.
        case replacing
        /// What is not mentioned stays.
        case patching
    }

    /// Receives a content into an open file.
    static func receiveContent(
        from stream: any ByteStream, into file: FileDescriptor, _ reception: Reception, limits: TreeLimits,
        name: @autoclosure () -> String, whileWorking: () throws -> Void = {}
    ) throws -> (Digest, received: UInt64) {
        var hasher = ContentHasher()
        var (position, received): (UInt64, UInt64) = (0, 0)
        func invalid() -> ContainerError { ContainerError("receiving \(name()): its content is not valid") }
        func makeHole(_ range: Range<UInt64>) throws {
            if range.isEmpty { return }
            let result = clx_punch_hole(file.number, range.lowerBound, range.upperBound - range.lowerBound)
            if result == -EOPNOTSUPP {
                try zero(file, range, name(), whileWorking)
            } else {
                try check(result, "making a hole in \(name())")
            }
        }
        func skip(to offset: UInt64) throws {
            if reception == .replacing { try makeHole(position..<offset) }
            position = offset
        }
        while true {
            try whileWorking()
            var reader = ByteReader(try stream.read(9))
            let tag = try reader.integer(UInt8.self)
            let offset = try reader.integer(UInt64.self)
            guard tag <= 2, offset <= limits.fileSize, offset >= position || tag == 0 && reception == .patching else {
                throw invalid()
            }
            switch tag {
            case 0:
                if offset > position { try skip(to: offset) }
                try checkC(ftruncate(file.number, Int(offset)), "setting the size of \(name())")
                let digest = hasher.finish(size: offset).0
                guard Digest(try stream.read(Digest.size)) == digest else {
                    throw ContainerError("receiving \(name()): its content does not have the digest it should have")
                }
                return (digest, received)
            case 2:
                reader = ByteReader(try stream.read(8))
                let length = try reader.integer(UInt64.self)
                guard reception == .patching, length <= limits.fileSize - offset else { throw invalid() }
                try makeHole(offset..<offset + length)
                position = offset + length
            default:
                reader = ByteReader(try stream.read(4))
                let length = Int(try reader.integer(UInt32.self))
                guard length > 0, length <= longestChunk, UInt64(length) <= limits.fileSize - offset else {
                    throw invalid()
                }
                try skip(to: offset)
                let chunk = try stream.read(length)
                chunk.withUnsafeBytes { hasher.update($0, at: offset) }
                try FileContent.write(chunk[...], file, at: offset, name: name())
                position += UInt64(length)
                received += UInt64(length)
            }
        }
    }

    private static func zero(
        _ file: FileDescriptor, _ range: Range<UInt64>, _ name: String, _ whileWorking: () throws -> Void
    ) throws {
        let zeros = [UInt8](repeating: 0, count: Int(min(UInt64(range.count), 1 << 20)))
        var offset = range.lowerBound
        while offset < range.upperBound {
            try whileWorking()
            let count = min(Int(range.upperBound - offset), zeros.count)
            try FileContent.write(zeros[..<count], file, at: offset, name: name)
            offset += UInt64(count)
        }
    }
}

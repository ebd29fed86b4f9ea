// The digest of a file's content, made of its blocks': holes cost nothing, and a file of which little changed need not
// travel whole.
import Glibc

/// Which blocks of a content hold anything but zeros, each with its digest.
struct BlockDigests {
    /// Bytes of a block.
    static let size: UInt64 = 65536
    /// The smallest file, in bytes, of which single blocks are remembered.
    static let smallestFile: UInt64 = 2 * size

    private(set) var digests: [UInt64: Digest] = [:]

    subscript(index: UInt64) -> Digest? {
        get { digests[index] }
        set { digests[index] = newValue }
    }

    /// Forgets the blocks that begin at or beyond a file's end.
    mutating func cut(to size: UInt64) { digests = digests.filter { $0.key * Self.size < size } }

    /// The digest of a content of so many bytes.
    func digest(size: UInt64) -> Digest {
        var root = ContentHasher.Root()
        for index in digests.keys.sorted() { root.add(index, digests[index]!) }
        return root.finish(size: size)
    }
}

/// Computes a content's digest from its bytes, which come in ascending order; what is left out counts as zeros.
///
/// It is SHA-256 over a mark, the number and the SHA-256 of each block that is not all zeros, and the size. So a hole
/// and zeros that were written are the same, and neither is hashed.
struct ContentHasher: ~Copyable {
    struct Root: ~Copyable {
        private var hasher = Digest.Hasher()
        init() { hasher.update(Array("apus content 1\n".utf8)) }

        mutating func add(_ index: UInt64, _ digest: Digest) {
            var writer = ByteWriter()
            writer.put(index)
            writer.put(raw: digest.bytes)
            hasher.update(writer.bytes)
        }

        consuming func finish(size: UInt64) -> Digest {
            var writer = ByteWriter()
            // No block has this number.
            writer.put(UInt64.max)
            writer.put(size)
            hasher.update(writer.bytes)
            return hasher.finish()
        }
    }

    /// Of the blocks that are complete.
    private(set) var blocks = BlockDigests()
    private var root = Root()
    private let keepsBlocks: Bool
    /// The block that is being filled, and what of it has come.
    private var index: UInt64 = 0
    private var block: [UInt8] = []

    init(keepingBlocks: Bool = false) { keepsBlocks = keepingBlocks }

    /// Bytes at an offset, which is not below the end of what came before.
    mutating func update(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) {
        var rest = bytes, offset = offset
        while !rest.isEmpty {
            if offset / BlockDigests.size != index { endBlock(next: offset / BlockDigests.size) }
            let within = Int(offset % BlockDigests.size)
            let part = UnsafeRawBufferPointer(rebasing: rest.prefix(Int(BlockDigests.size) - within))
            if part.count == Int(BlockDigests.size) {
                add(Self.digest(of: part))
            } else {
                block += [UInt8](repeating: 0, count: within - block.count)
                block += part
            }
            offset += UInt64(part.count)
            rest = UnsafeRawBufferPointer(rebasing: rest[part.count...])
        }
    }

    /// - Parameter size: of the file, in bytes.
    consuming func finish(size: UInt64) -> (Digest, BlockDigests) {
        endBlock(next: index)
        return (root.finish(size: size), blocks)
    }

    private mutating func endBlock(next: UInt64) {
        if !block.isEmpty { add(block.withUnsafeBytes { Self.digest(of: $0) }) }
        block.removeAll(keepingCapacity: true)
        index = next
    }

    private mutating func add(_ digest: Digest?) {
        guard let digest else { return }
        root.add(index, digest)
        if keepsBlocks { blocks[index] = digest }
    }

    /// Nil if all are zeros. Zeros at a block's end count for nothing, so that it does not matter where the data ends.
    static func digest(of block: UnsafeRawBufferPointer) -> Digest? {
        var count = block.count
        while count >= 8, block.loadUnaligned(fromByteOffset: count - 8, as: UInt64.self) == 0 { count -= 8 }
        while count > 0, block[count - 1] == 0 { count -= 1 }
        if count == 0 { return nil }
        var hasher = Digest.Hasher()
        hasher.update(UnsafeRawBufferPointer(rebasing: block[..<count]))
        return hasher.finish()
    }
}

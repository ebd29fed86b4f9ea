// A small tree of files as its sender would describe it.

@testable import Containers

extension FileTreeSender {
    private static func entries() -> [FileEntry] {
        let time = Timestamp(seconds: 1, nanoseconds: 2)
        var file = FileEntry(path: Array("p".utf8), kind: .regular, mode: 0o755, uid: 0, gid: 0, modified: time)
        (file.size, file.allocated) = (5, 4096)
        var link = FileEntry(path: Array("l".utf8), kind: .symbolicLink, mode: 0o777, uid: 0, gid: 0, modified: time)
        link.target = Array("p".utf8)
        let root = FileEntry(path: [], kind: .directory, mode: 0o755, uid: 0, gid: 0, modified: time)
        return [root, link, file]
    }

    /// The entries' description.
    static func example() -> [UInt8] {
        var writer = ByteWriter()
        for entry in entries() { entry.encode(into: &writer) }
        return writer.bytes
    }

    /// The whole tree: what goes before the receiver says what it needs, and the content of its one file.
    static func exampleStream() -> [[UInt8]] {
        var head = ByteWriter(), content = ByteWriter()
        head.put(raw: TreeProtocol.treeMagic)
        head.put(TreeProtocol.version)
        let manifest = example()
        head.put(UInt64(manifest.count))
        head.put(raw: manifest)
        let bytes = Array("hello".utf8)
        content.put(UInt8(1))
        content.put(UInt64(0))
        content.put(UInt32(bytes.count))
        content.put(raw: bytes)
        content.put(UInt8(0))
        content.put(UInt64(bytes.count))
        var hasher = ContentHasher()
        bytes.withUnsafeBytes { hasher.update($0, at: 0) }
        content.put(raw: hasher.finish(size: UInt64(bytes.count)).0.bytes)
        return [head.bytes, content.bytes]
    }

    /// A tree of which there is nothing but its root.
    static func emptyStream() -> [[UInt8]] {
        var head = ByteWriter(), manifest = ByteWriter()
        entries()[0].encode(into: &manifest)
        head.put(raw: TreeProtocol.treeMagic)
        head.put(TreeProtocol.version)
        head.put(UInt64(manifest.bytes.count))
        head.put(raw: manifest.bytes)
        return [head.bytes]
    }

    /// Changes in which nothing was removed, renamed or changed.
    static func exampleChanges() -> [UInt8] {
        var changes = ByteWriter()
        changes.put(raw: TreeProtocol.changesMagic)
        changes.put(TreeProtocol.version)
        changes.put(UInt64(12))
        for _ in 0..<3 { changes.put(UInt32(0)) }
        return changes.bytes
    }
}

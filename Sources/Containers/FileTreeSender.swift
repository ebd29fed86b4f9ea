// The source's side of a tree: sends it whole, then what changed, and in the freeze what changed last.
import CLinux
import Glibc
import LinuxKernel

/// Sends one tree of files and remembers what the other side has.
///
/// `sendAll` once, then `changes` as often as one likes while the container runs, the last time in the freeze: that
/// pass is exact. Not for use by several threads at once.
public final class FileTreeSender {
    private let scanner: TreeScanner
    private let isReadOnly: Bool
    private let cache: DigestCache?

    /// - Parameters:
    ///   - excluding: paths that are not the tree's: the stub's place, mount points.
    ///   - isReadOnly: nobody can write to it: `changes` then costs nothing.
    public init(root: TreeRoot, excluding: Set<TreePath> = [], isReadOnly: Bool = false, cache: DigestCache? = nil) {
        scanner = TreeScanner(root: root, excluding: excluding)
        self.isReadOnly = isReadOnly
        self.cache = cache
    }

    /// The whole tree's description, with a digest of each content. Files that change meanwhile are described as they
    /// were at some moment.
    public func manifest() throws -> [FileEntry] {
        _ = try scanner.scan()
        var leaders: [UInt64: TreePath] = [:]
        var entries: [FileEntry] = []
        try scanner.top!.forEach { node in
            var entry = node.entry
            if node.stamp.links > 1 && node.kind != .directory {
                if let leader = leaders[node.stamp.inode] {
                    entry.linkedTo = leader
                    (entry.digest, entry.size, entry.allocated) = (nil, 0, 0)
                } else {
                    leaders[node.stamp.inode] = entry.path
                }
            }
            if node.kind == .regular {
                node.digest = nil
                if let file = try open(node) {
                    let found = try cache?.digest(of: file, name: text(entry.path))
                    let size = found?.size ?? node.stamp.size
                    node.digest = try found?.0 ?? FileContent.digest(of: file, size: size, name: text(entry.path))
                    if entry.linkedTo == nil { (entry.digest, entry.size) = (node.digest, size) }
                }
            }
            entries.append(entry)
        }
        return entries
    }

    /// Sends the whole tree to a `FileTreeReceiver.receiveAll`, and returns when it is in place.
    @discardableResult
    public func sendAll(over stream: any ByteStream) throws -> TreeReport {
        let entries = try manifest()
        var nodes: [TreeNode] = []
        scanner.top!.forEach { nodes.append($0) }
        var writer = ByteWriter()
        for entry in entries { entry.encode(into: &writer) }
        try TreeProtocol.writeHeader(TreeProtocol.treeMagic, to: stream)
        try stream.writeBlock(writer.bytes)
        try stream.flush()
        var needs = ByteReader(try stream.readBlock(atMost: 4 * entries.count, what: "the list of files needed"))
        var report = TreeReport(entries: entries.count)
        while needs.left > 0 {
            let number = Int(try needs.integer(UInt32.self))
            guard number < nodes.count, nodes[number].kind == .regular else {
                throw ContainerError("the destination asks for a file that is not in the tree")
            }
            let node = nodes[number]
            let (digest, sent) = try TreeProtocol.sendContent(of: open(node), to: stream, name: text(node.path))
            node.digest = digest
            report.contents += 1
            report.contentBytes += sent
        }
        try stream.flush()
        guard try stream.read(1) == [1] else { throw ContainerError("the destination did not take the tree") }
        report.cached = entries.count { $0.kind == .regular && $0.linkedTo == nil } - report.contents
        return report
    }

    /// What changed since the last call, or since `sendAll`; nil: nothing. Must be written to the other side before the
    /// next call.
    ///
    /// - Parameters:
    ///   - suspects: inodes whose content may have changed without a trace: files that the container's processes map
    ///     shared. See `SharedMappings`.
    ///   - isStill: the container is stopped: an entry that vanishes all the same is an error.
    public func changes(suspects: Set<UInt64> = [], isStill: Bool = false) throws -> TreeChanges? {
        if isReadOnly { return nil }
        let difference = try scanner.scan(suspects: suspects, isStill: isStill)
        if difference.changes.isEmpty && difference.removed.isEmpty { return nil }
        return TreeChanges(difference, sender: self)
    }

    /// Nil if it is gone or has become something else.
    func open(_ node: TreeNode) throws(KernelError) -> FileDescriptor? {
        do throws(KernelError) {
            let file = try scanner.root.open(node.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
            return try Stamp(file, "").mode & S_IFMT == S_IFREG ? file : nil
        } catch {
            if error.saysReplaced { return nil }
            throw error
        }
    }
}

/// What a tree's walk found changed, ready to be written to the other side.
public final class TreeChanges {
    struct Item {
        var entry: FileEntry
        let node: TreeNode
        var sendsContent: Bool
        /// The other side changes its file instead of making a new one, so that descriptors opened early stay right.
        var isInPlace: Bool
    }
    private(set) var items: [Item] = []
    private(set) var removed: [TreePath]
    private(set) var renames: [(from: TreePath, to: TreePath)] = []
    private let sender: FileTreeSender

    init(_ difference: TreeDifference, sender: FileTreeSender) {
        self.sender = sender
        removed = difference.removed
        var doneLinks: Set<UInt64> = []
        for change in difference.changes {
            let node = change.node
            if node.kind != .directory, let group = difference.linked[node.stamp.inode], group.count > 1 {
                if doneLinks.insert(node.stamp.inode).inserted { addLinks(group, difference) }
                continue
            }
            var item = Item(
                entry: node.entry, node: node, sendsContent: change.contentDiffers, isInPlace: change.isSameFile)
            if !change.isSameFile, node.kind == .regular, node.stamp.links == 1,
                let old = difference.moved[node.stamp.inode], old.path != item.entry.path
            {
                renames.append((old.path, item.entry.path))
                item.isInPlace = true
                item.sendsContent = true
                if old.node.stamp.size == node.stamp.size, old.node.stamp.modified == node.stamp.modified,
                    let known = old.node.digest, (try? digest(node)) == known
                {
                    item.sendsContent = false
                    node.digest = known
                }
            }
            items.append(item)
        }
        // Names of one file were put together: back into the order of the walk, folders before what is in them.
        if !doneLinks.isEmpty { items.sort { Self.isBefore($0.entry.path, $1.entry.path) } }
    }

    /// The order of the walk: name by name.
    private static func isBefore(_ a: TreePath, _ b: TreePath) -> Bool {
        a.lexicographicallyPrecedes(b) { ($0 == 47 ? 0 : $0) < ($1 == 47 ? 0 : $1) }
    }

    /// Everything about a file with several names goes over as soon as anything of it changed. Its first name stands
    /// for the file.
    private func addLinks(_ group: [TreeNode], _ difference: TreeDifference) {
        let changes = difference.changes.filter { change in group.contains { $0 === change.node } }
        let leader = group[0]
        let change = changes.first { $0.node === leader }
        let isSameFile = change?.isSameFile ?? true
        items.append(
            Item(
                entry: leader.entry, node: leader,
                sendsContent: leader.kind == .regular
                    && (!isSameFile || changes.contains { $0.isSameFile && $0.contentDiffers }),
                isInPlace: isSameFile))
        for node in group.dropFirst() {
            var entry = node.entry
            entry.linkedTo = leader.path
            (entry.digest, entry.size, entry.allocated) = (nil, 0, 0)
            items.append(Item(entry: entry, node: node, sendsContent: false, isInPlace: false))
        }
    }

    private func digest(_ node: TreeNode) throws -> Digest? {
        try sender.open(node).map { try FileContent.digest(of: $0, size: node.stamp.size, name: text(node.path)) }
    }

    /// What changed, one line each, for people.
    public var summary: [String] {
        removed.map { "removed \(text($0))" } + renames.map { "renamed \(text($0.from)) to \(text($0.to))" }
            + items.map { "\($0.sendsContent ? "content" : "entry") \(text($0.entry.path))" }
    }

    /// Writes them, contents as they are now, for `FileTreeReceiver.apply`.
    @discardableResult
    public func write(to stream: any ByteStream) throws -> TreeReport {
        var writer = ByteWriter()
        writer.put(UInt32(removed.count))
        for path in removed { writer.put(path) }
        writer.put(UInt32(renames.count))
        for (from, to) in renames {
            writer.put(from)
            writer.put(to)
        }
        writer.put(UInt32(items.count))
        for item in items {
            item.entry.encode(into: &writer)
            writer.put(UInt8((item.sendsContent ? 1 : 0) | (item.isInPlace ? 2 : 0)))
        }
        try TreeProtocol.writeHeader(TreeProtocol.changesMagic, to: stream)
        try stream.writeBlock(writer.bytes)
        var report = TreeReport(entries: items.count + removed.count)
        for item in items where item.sendsContent {
            let (digest, sent) = try TreeProtocol.sendContent(
                of: sender.open(item.node), to: stream, name: text(item.entry.path))
            item.node.digest = digest
            report.contents += 1
            report.contentBytes += sent
        }
        // The other names of a file know its content too.
        for item in items where item.entry.linkedTo != nil {
            item.node.digest = items.first { $0.entry.path == item.entry.linkedTo }?.node.digest
        }
        try stream.flush()
        return report
    }

    /// The same as bytes.
    public func encoded() throws -> [UInt8] {
        let stream = MemoryStream()
        try write(to: stream)
        return stream.bytes
    }
}

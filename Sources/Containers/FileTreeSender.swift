// The source's side of a tree: sends it whole, then what changed, and in the freeze what changed last.
import CLinux
import Glibc
import LinuxKernel

/// Sends one tree of files and remembers what the other side has.
///
/// `sendAll` once, then `changes` as often as one likes while the container runs, the last time in the freeze: that
/// pass is exact. Not for use by several threads at once.
public final class FileTreeSender {
    let scanner: TreeScanner
    private let isReadOnly: Bool
    private let cache: DigestCache?
    /// Called again and again during long steps; throws to end them.
    public var whileWorking: () throws -> Void {
        get { scanner.whileWorking }
        set { scanner.whileWorking = newValue }
    }
    /// What tells which parts of large files are written to; nil: such files are read whole when they have changed.
    public var writes: FileWrites? {
        get { scanner.writes }
        set { scanner.writes = newValue }
    }
    /// Inodes of files that are open for writing, as far as is known.
    private var written: Set<UInt64> = []
    private var suspects: Set<UInt64> = []

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
    ///
    /// - Parameter written: inodes of files that are open for writing: of large ones it will be known which blocks change.
    public func manifest(written: Set<UInt64> = []) throws -> [FileEntry] {
        self.written = written
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
                (node.digest, node.blocks) = (nil, nil)
                if let file = try open(node) {
                    let size = try read(node, file, isWritten: written.contains(node.stamp.inode))
                    if entry.linkedTo == nil { (entry.digest, entry.size) = (node.digest, size) }
                }
            }
            entries.append(entry)
        }
        return entries
    }

    /// Finds out the digest of a file; while the container writes to the file, the digests of its blocks too.
    private func read(_ node: TreeNode, _ file: FileDescriptor, isWritten: Bool) throws -> UInt64 {
        let name = text(node.path)
        if let cache, !isWritten {
            let (digest, size) = try cache.digest(of: file, name: name, whileWorking: whileWorking)
            node.digest = digest
            return size
        }
        try follow(file, name)
        let size = try Stamp(file, name).size
        (node.digest, node.blocks) = try FileContent.digest(
            of: file, size: size, name: name, whileWorking: whileWorking)
        return size
    }

    /// Sends the whole tree to a `FileTreeReceiver.receiveAll`, and returns when it is in place.
    @discardableResult
    public func sendAll(over stream: any ByteStream, written: Set<UInt64> = []) throws -> TreeReport {
        let entries = try manifest(written: written)
        var nodes: [TreeNode] = []
        scanner.top!.forEach { nodes.append($0) }
        var writer = ByteWriter()
        for entry in entries { entry.encode(into: &writer) }
        try TreeProtocol.writeHeader(TreeProtocol.treeMagic, to: stream)
        try stream.writeBlock(writer.bytes)
        try stream.flush()
        var needs = ByteReader(try stream.readBlock(atMost: 4 * entries.count, what: "the list of files needed"))
        var report = TreeReport(entries: entries.count)
        var last = -1
        while needs.left > 0 {
            let number = Int(try needs.integer(UInt32.self))
            // In order and once: asked for as often as there are entries, one large file would be read and sent for
            // days.
            guard number > last, number < nodes.count, nodes[number].kind == .regular else {
                throw ContainerError("the destination asks for a file that is not in the tree, or for one twice")
            }
            last = number
            let node = nodes[number]
            report.contentBytes += try send(node, onlyBlocks: false, to: stream)
            report.contents += 1
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
    ///   - written: inodes of files that are open for writing; nil: as the last time.
    public func changes(suspects: Set<UInt64> = [], isStill: Bool = false, written: Set<UInt64>? = nil) throws
        -> TreeChanges?
    {
        if isReadOnly { return nil }
        self.suspects = suspects
        compared = []
        self.written = written ?? self.written
        let difference = try scanner.scan(suspects: suspects, opened: self.written, isStill: isStill)
        if difference.changes.isEmpty && difference.removed.isEmpty { return nil }
        return try TreeChanges(difference, sender: self)
    }

    /// Files that were compared as a whole since `changes` was called last, since nothing tells which parts of them are
    /// written to; each with the milliseconds that it took.
    public private(set) var compared: [(name: String, milliseconds: Double)] = []

    /// Sends a file's content, and remembers it.
    ///
    /// - Parameter onlyBlocks: those that differ from what the other side has.
    func send(_ node: TreeNode, onlyBlocks: Bool, to stream: any ByteStream) throws -> UInt64 {
        let file = try open(node), name = text(node.path)
        var ranges: [Range<UInt64>]?
        if let file {
            let identity = try Stamp(file, name).identity
            // Where stores through mappings may have changed it, all of it has to be compared. Another file that is
            // there by now has writes of its own, which are taken when it is sent.
            if !suspects.contains(identity.inode), identity == node.stamp.identity, let writes {
                // A write changes the file's times first and tells of its blocks last, and keeps this call waiting
                // meanwhile.
                _ = clx_lseek(file.number, 0, clx_SEEK_DATA)
                ranges = writes.take(identity)
            }
            try follow(file, name)
        }
        if onlyBlocks, let file {
            node.digest = nil
            let begin = monotonicNow()
            defer { if ranges == nil { compared.append((name, Double(monotonicNow() - begin) / 1e6)) } }
            return try TreeProtocol.sendChanges(
                of: file, in: ranges ?? [0..<UInt64.max], known: &node.blocks!, to: stream, name: name,
                whileWorking: whileWorking)
        }
        let (digest, blocks, sent) = try TreeProtocol.sendContent(
            of: file, to: stream, name: name, whileWorking: whileWorking)
        (node.digest, node.blocks) = (digest, blocks)
        return sent
    }

    /// From now on it will be known which parts of a large file are written to. Before it is read.
    private func follow(_ file: FileDescriptor, _ name: String) throws {
        var status = stat()
        try checkC(fstat(file.number, &status), "examining \(name)")
        guard written.contains(UInt64(status.st_ino)), UInt64(status.st_size) >= BlockDigests.smallestFile else {
            return
        }
        _ = writes?.follow(status, folder: scanner.root.descriptor)
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
        /// Only blocks that differ are sent.
        var isPatch: Bool { sendsContent && isInPlace && node.blocks != nil }
    }
    private(set) var items: [Item] = []
    private(set) var removed: [TreePath]
    private(set) var renames: [(from: TreePath, to: TreePath)] = []
    private let sender: FileTreeSender

    init(_ difference: TreeDifference, sender: FileTreeSender) throws {
        self.sender = sender
        removed = difference.removed
        // One that is renamed while the walk is at it is seen at both places: it has gone to the first.
        var moved = difference.moved
        var doneLinks: Set<UInt64> = []
        let changes = Dictionary(difference.changes.map { (ObjectIdentifier($0.node), $0) }) { first, _ in first }
        for change in difference.changes {
            let node = change.node
            if node.kind != .directory, let group = difference.linked[node.stamp.inode], group.count > 1 {
                if doneLinks.insert(node.stamp.inode).inserted { addLinks(group, changes) }
                continue
            }
            var item = Item(
                entry: node.entry, node: node, sendsContent: change.contentDiffers, isInPlace: change.isSameFile)
            if !change.isSameFile, node.kind == .regular, node.stamp.links == 1,
                let old = moved.removeValue(forKey: node.stamp.inode), old.path != item.entry.path
            {
                renames.append((old.path, item.entry.path))
                item.isInPlace = true
                item.sendsContent = true
                node.blocks = old.node.blocks
                if node.blocks == nil, old.node.stamp.size == node.stamp.size,
                    old.node.stamp.modified == node.stamp.modified, let known = old.node.digest,
                    try digest(node) == known
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
    private func addLinks(_ group: [TreeNode], _ changes: [ObjectIdentifier: TreeDifference.Change]) {
        let leader = group[0]
        let isSameFile = changes[ObjectIdentifier(leader)]?.isSameFile ?? true
        let ofGroup = group.compactMap { changes[ObjectIdentifier($0)] }
        items.append(
            Item(
                entry: leader.entry, node: leader,
                sendsContent: leader.kind == .regular
                    && (!isSameFile || ofGroup.contains { $0.isSameFile && $0.contentDiffers }),
                isInPlace: isSameFile))
        for node in group.dropFirst() {
            var entry = node.entry
            entry.linkedTo = leader.path
            (entry.digest, entry.size, entry.allocated) = (nil, 0, 0)
            items.append(Item(entry: entry, node: node, sendsContent: false, isInPlace: false))
        }
    }

    private func digest(_ node: TreeNode) throws -> Digest? {
        try sender.open(node).map {
            try FileContent.digest(
                of: $0, size: node.stamp.size, name: text(node.path), whileWorking: sender.whileWorking
            ).0
        }
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
        // What is told of an item holds for its content, though sending one may make known the blocks of another.
        let patches = items.map(\.isPatch)
        for (item, isPatch) in zip(items, patches) {
            item.entry.encode(into: &writer)
            writer.put(UInt8((item.sendsContent ? 1 : 0) | (item.isInPlace ? 2 : 0) | (isPatch ? 4 : 0)))
        }
        try TreeProtocol.writeHeader(TreeProtocol.changesMagic, to: stream)
        try stream.writeBlock(writer.bytes)
        var report = TreeReport(entries: items.count + removed.count)
        for (item, isPatch) in zip(items, patches) where item.sendsContent {
            report.contents += 1
            report.contentBytes += try sender.send(item.node, onlyBlocks: isPatch, to: stream)
        }
        // The other names of a file know its content too.
        var leaders: [TreePath: TreeNode] = [:]
        for item in items {
            if let target = item.entry.linkedTo {
                (item.node.digest, item.node.blocks) = (leaders[target]?.digest, leaders[target]?.blocks)
            } else if item.node.stamp.links > 1 {
                leaders[item.entry.path] = item.node
            }
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

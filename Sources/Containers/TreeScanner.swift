// Walks a tree and tells what differs from the last walk. Made for the freeze: only what the kernel tells something
// happened to is looked at (TreeWatch). Where that is not to be had, a folder that did not change is not read again,
// only its entries are looked at (one lstat each).
import CLinux
import Glibc
import LinuxKernel

/// What is remembered of one entry between two walks.
final class TreeNode {
    let name: [UInt8]
    /// The name with a closing zero.
    let cName: [CChar]
    unowned let parent: TreeNode?
    var stamp: Stamp
    let kind: FileEntry.Kind
    /// A change in the same tick of the clock as the last look would not show in the stamp: look closer next time
    /// (git's "racy" entries).
    var isRacy: Bool
    /// The other side has not been told of it yet.
    var isNew = true
    var children: [TreeNode] = []
    var target: [UInt8] = []
    var attributes: [FileEntry.Attribute] = []
    /// Of the content that the other side has; nil: not known.
    var digest: Digest?
    /// Of a folder: the number of its watch.
    var watch: Int32?
    /// Of a large file: the blocks that the other side has. `digest` may be nil then.
    var blocks: BlockDigests?

    init(name: [UInt8], parent: TreeNode?, stamp: Stamp, kind: FileEntry.Kind, isRacy: Bool) {
        self.name = name
        cName = cString(name.isEmpty ? [46] : name)
        self.parent = parent
        self.stamp = stamp
        self.kind = kind
        self.isRacy = isRacy
    }

    var path: TreePath {
        guard let parent, !parent.name.isEmpty else { return name }
        return parent.path + [UInt8(ascii: "/")] + name
    }

    /// The entry as it travels; links and digests are filled in by the sender.
    var entry: FileEntry {
        var entry = FileEntry(
            path: path, kind: kind, mode: stamp.mode & 0o7777, uid: stamp.uid, gid: stamp.gid,
            modified: stamp.modified)
        switch kind {
        case .regular:
            entry.size = stamp.size
            entry.allocated = stamp.blocks * 512
            entry.digest = digest
        case .symbolicLink: entry.target = target
        case .characterDevice, .blockDevice: entry.device = stamp.rdev
        default: break
        }
        entry.attributes = attributes
        return entry
    }

    /// Where an entry of this name is among the children, or belongs: they are in the order of their names.
    func firstChild(notBefore name: [UInt8]) -> Int {
        var low = 0, high = children.count
        while low < high {
            let middle = (low + high) / 2
            if children[middle].name.lexicographicallyPrecedes(name) { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func forEach(_ body: (TreeNode) throws -> Void) rethrows {
        try body(self)
        for child in children { try child.forEach(body) }
    }
}

/// What one walk found to differ from the walk before.
struct TreeDifference {
    struct Change {
        let node: TreeNode
        /// The path was there before, as the same inode.
        let isSameFile: Bool
        /// A regular file's content differs from what `node.digest` says, or may.
        var contentDiffers: Bool
    }
    /// In the order of the walk: a folder before its entries.
    var changes: [Change] = []
    /// Paths that are gone, the topmost only.
    var removed: [TreePath] = []
    /// Where regular files were that are no longer at their path, by inode; what they were known as.
    var moved: [UInt64: (path: TreePath, node: TreeNode)] = [:]
    /// Nodes of files with several names, by inode, in the order of the walk.
    var linked: [UInt64: [TreeNode]] = [:]

    /// What two walks have found changed counts once, as the first found it.
    mutating func joinChanges() {
        var places: [ObjectIdentifier: Int] = [:], joined: [Change] = []
        for change in changes {
            if let place = places[ObjectIdentifier(change.node)] {
                joined[place].contentDiffers = joined[place].contentDiffers || change.contentDiffers
            } else {
                places[ObjectIdentifier(change.node)] = joined.count
                joined.append(change)
            }
        }
        changes = joined
    }
}

/// Walks one tree again and again.
final class TreeScanner {
    let root: TreeRoot
    private let excluded: Set<TreePath>
    private let excludedNames: Set<[UInt8]>
    private(set) var top: TreeNode?
    /// Called again and again while the tree is walked and files are read; throws to end it.
    var whileWorking: () throws -> Void = {}

    /// Entries that the last walk looked at.
    private(set) var looks = 0
    private var difference = TreeDifference()
    private var suspects: Set<UInt64> = []
    private var isStill = false
    private var now = Timestamp(seconds: 0, nanoseconds: 0)
    /// Nil: none is to be had, or there are more folders than may be watched.
    private var watch: TreeWatch?
    private var wantsWatch = true
    /// Regular files by their inodes.
    private var files: [UInt64: TreeNode] = [:]
    /// The walk has met a file with several names: what became of the others must be known.
    private var metLinks = false
    /// Of a walk that looks at what was touched: the folders to enter, below each of those that lead there.
    private var touches: [ObjectIdentifier: (names: Set<[UInt8]>, below: [TreeNode])] = [:]
    /// Tells which parts of large files are written to; nil: that is not to be had.
    var writes: FileWrites?

    /// - Parameter excluded: paths left out with all that is below them.
    init(root: TreeRoot, excluding excluded: Set<TreePath> = []) {
        self.root = root
        self.excluded = excluded
        excludedNames = Set(excluded.map { $0.split(separator: UInt8(ascii: "/")).last.map(Array.init) ?? [] })
    }

    /// Walks the tree.
    ///
    /// - Parameters:
    ///   - suspects: inodes whose content may change without a trace in their stamps: those that are mapped shared (a
    ///     store to a page that is dirty already changes no time; on tmpfs none does).
    ///   - opened: inodes of files that are open for writing: a store through a mapping that is gone by now changed the
    ///     times of its file, but raised no event.
    ///   - isStill: nothing may change the tree meanwhile: an entry that is gone when it is opened is an error.
    func scan(suspects: Set<UInt64> = [], opened: Set<UInt64> = [], isStill: Bool = false) throws -> TreeDifference {
        difference = TreeDifference()
        (goneNodes, looks) = ([:], 0)
        (self.suspects, self.isStill) = (suspects, isStill)
        // Before the first look at anything: see `Stamp.isRacy`.
        now = Stamp.now()
        // One that begins now knows of nothing that has happened before.
        let isWatched = watch != nil && top != nil
        if wantsWatch, watch == nil {
            watch = try? TreeWatch()
            wantsWatch = watch != nil
        }
        do {
            var isDone = false
            if isWatched, let touched = try watch?.take() { isDone = try scan(touched, opened) }
            if !isDone { try scanAll() }
            // Where both walks were needed, the second may have found gone what the first had met, or changed once
            // more.
            difference.changes.removeAll { isGone($0.node) }
            if isWatched, !isDone { difference.joinChanges() }
            for change in difference.changes { change.node.isNew = false }
            return difference
        } catch {
            // What was taken from the watch and not looked at is lost: the next walk has to read everything again.
            watch = nil
            throw error
        }
    }

    // ---- What was touched ----------------------------------------------------------------------------------

    /// - Returns: false if everything has to be looked at.
    private func scan(_ touched: [TreeWatch.Touch], _ opened: Set<UInt64>) throws -> Bool {
        touches = [:]
        metLinks = false
        for touch in touched { add(touch.folder, touch.names) }
        for inode in suspects.union(opened) {
            if let found = files[inode] { add(found.parent!, [found.name]) }
        }
        if touches.isEmpty { return true }
        try walkTouched(top!, root.descriptor, in: root.descriptor)
        return !metLinks
    }

    /// Notes what was touched in a folder, and in the folders that lead there, that it has to be entered.
    private func add(_ folder: TreeNode, _ names: Set<[UInt8]>) {
        var node = folder
        if touches[ObjectIdentifier(node)] != nil {
            touches[ObjectIdentifier(node)]!.names.formUnion(names)
            return
        }
        touches[ObjectIdentifier(node)] = (names, [])
        while let parent = node.parent {
            let isKnown = touches[ObjectIdentifier(parent)] != nil
            touches[ObjectIdentifier(parent), default: ([], [])].below.append(node)
            if isKnown { return }
            node = parent
        }
    }

    private func walkTouched(_ node: TreeNode, _ folder: FileDescriptor, in parent: FileDescriptor) throws {
        try whileWorking()
        guard let touch = touches.removeValue(forKey: ObjectIdentifier(node)) else { return }
        let stamp = try Stamp(folder, text(node.path))
        if stamp != node.stamp || node.isRacy { try examine(node, stamp, folder: parent) }
        for name in touch.names.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
            if isExcluded(name, in: node) { continue }
            let index = node.firstChild(notBefore: name)
            if index < node.children.count, node.children[index].name == name {
                let child = node.children[index]
                if let current = try look(child, folder) {
                    node.children[index] = current
                } else {
                    node.children.remove(at: index)
                }
            } else if let stamp = try self.stamp(of: cString(name), folder, node),
                let child = try add(name, node, stamp, folder)
            {
                node.children.insert(child, at: index)
            }
        }
        for child in touch.below where !isGone(child) {
            guard touches[ObjectIdentifier(child)] != nil else { continue }
            guard let entered = try unlessReplaced({ try open(child, folder) }) else {
                // Somebody has just removed or replaced it: its events come with the next walk, which looks at all.
                child.isRacy = true
                metLinks = true
                continue
            }
            try walkTouched(child, entered, in: folder)
        }
    }

    private func isExcluded(_ name: [UInt8], in node: TreeNode) -> Bool {
        excludedNames.contains(name) && excluded.contains(node.name.isEmpty ? name : node.path + [47] + name)
    }

    // ---- Everything ----------------------------------------------------------------------------------------

    private func scanAll() throws {
        difference.linked = [:]
        touches = [:]
        let stamp = try Stamp(root.descriptor, root.name)
        let node: TreeNode
        var readAgain = true
        if let top {
            node = top
            readAgain = top.stamp != stamp || top.isRacy
            if readAgain { try examine(node, stamp, folder: root.descriptor) }
        } else {
            node = TreeNode(name: [], parent: nil, stamp: stamp, kind: .directory, isRacy: stamp.isRacy(at: now))
            top = node
            try fill(node, folder: root.descriptor)
            difference.changes.append(.init(node: node, isSameFile: false, contentDiffers: false))
        }
        try walk(node, root.descriptor, readAgain: readAgain)
    }

    private func walk(_ node: TreeNode, _ folder: FileDescriptor, readAgain: Bool) throws {
        try whileWorking()
        // One that an earlier part of this walk has just read again need not be entered for what was touched in it.
        touches[ObjectIdentifier(node)] = nil
        var readAgain = readAgain
        if let watch {
            do throws(KernelError) {
                if try watch.add(node, folder) { readAgain = true }
            } catch {
                // More folders than the kernel lets a user watch.
                (self.watch, wantsWatch) = (nil, false)
            }
        }
        if !readAgain {
            var someAreGone = false
            for index in node.children.indices {
                if let current = try look(node.children[index], folder) {
                    if current !== node.children[index] { node.children[index] = current }
                } else {
                    someAreGone = true
                }
            }
            // The folder changed after we looked at it: the next walk reads it again.
            if someAreGone { node.children.removeAll(where: isGone) }
            return
        }
        let names = try unlessReplaced {
            try FolderReader.names(folder, in: text(node.path))
        }
        guard let names else {
            node.isRacy = true
            return
        }
        var known: [[UInt8]: TreeNode] = [:]
        for child in node.children { known[child.name] = child }
        var children: [TreeNode] = []
        for name in names.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
            if isExcluded(name, in: node) { continue }
            if let child = known.removeValue(forKey: name) {
                if let current = try look(child, folder) { children.append(current) }
            } else if let stamp = try stamp(of: cString(name), folder, node),
                let child = try add(name, node, stamp, folder)
            {
                children.append(child)
            }
        }
        for child in known.values { gone(child) }
        node.children = children
    }

    /// lstat of a folder's entry; nil if it is gone. A file system mounted below is refused: its content would be lost.
    /// (Only folders tell: overlayfs may show its files with another device than its folders.)
    private func stamp(of name: [CChar], _ folder: FileDescriptor, _ parent: TreeNode) throws -> Stamp? {
        looks += 1
        var status = stat()
        if fstatat(folder.number, name, &status, AT_SYMLINK_NOFOLLOW) != 0 {
            if errno == ENOENT { return nil }
            try checkC(Int32(-1), "examining an entry of \(text(parent.path)) in \(root.name)")
        }
        let stamp = Stamp(status)
        if let top, stamp.device != top.stamp.device, stamp.mode & S_IFMT == S_IFDIR {
            let path =
                text(parent.path) + "/" + String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            throw ContainerError("\(root.name): a file system is mounted at \(path) that no configuration names")
        }
        return stamp
    }

    /// Looks at an entry that was there at the last walk.
    ///
    /// - Returns: the node for what is there now: the same, or a new one if it is another file; nil: it is gone.
    private func look(_ node: TreeNode, _ folder: FileDescriptor) throws -> TreeNode? {
        guard let stamp = try stamp(of: node.cName, folder, node.parent!) else {
            gone(node)
            return nil
        }
        if node.kind != .directory, max(stamp.links, node.stamp.links) > 1 { metLinks = true }
        let isSuspect = !suspects.isEmpty && suspects.contains(stamp.inode) && node.kind == .regular
        if stamp == node.stamp && !node.isRacy && !isSuspect {
            if stamp.links > 1 && node.kind != .directory { difference.linked[stamp.inode, default: []].append(node) }
            if node.kind == .directory, !node.children.isEmpty { try enter(node, folder, readAgain: false) }
            return node
        }
        if stamp.inode != node.stamp.inode || FileEntry.Kind(mode: stamp.mode) != node.kind {
            if node.kind == .directory && FileEntry.Kind(mode: stamp.mode) == .directory {
                // Another folder in its place: its entries tell for themselves.
                watch?.remove(node)
            } else {
                forget(node)
                if let current = try add(node.name, node.parent!, stamp, folder) { return current }
                // Gone as well: the other side still has what was here first.
                difference.removed.append(node.path)
                return nil
            }
        }
        if stamp.links > 1 && node.kind != .directory { difference.linked[stamp.inode, default: []].append(node) }
        try examine(node, stamp, folder: folder)
        if node.kind == .directory { try enter(node, folder, readAgain: true) }
        return node
    }

    private func enter(_ node: TreeNode, _ folder: FileDescriptor, readAgain: Bool) throws {
        guard let entered = try unlessReplaced({ try open(node, folder) }) else {
            node.isRacy = true
            return
        }
        try walk(node, entered, readAgain: readAgain)
    }

    /// A running container may remove or replace an entry between two looks at it; nil then. The next walk sees what
    /// came of it.
    private func unlessReplaced<T>(_ look: () throws -> T) throws -> T? {
        do {
            return try look()
        } catch let error as KernelError where error.saysReplaced && !isStill { return nil }
    }

    /// Looks closely at an entry whose stamp differs or proves nothing, and notes what differs.
    private func examine(_ node: TreeNode, _ stamp: Stamp, folder: FileDescriptor) throws {
        let before = node.stamp
        let attributes = node.attributes
        let target = node.target
        node.stamp = stamp
        node.isRacy = stamp.isRacy(at: now)
        let contentDiffers = try unlessReplaced {
            try fill(node, folder: folder)
            guard node.kind == .regular else { return false }
            if before.size != stamp.size || before.modified != stamp.modified { return true }
            if let writes, writes.isFollowed(stamp.identity), !suspects.contains(stamp.inode), node.blocks != nil {
                return writes.hasChanged(stamp.identity)
            }
            guard let known = node.digest ?? node.blocks?.digest(size: stamp.size) else { return true }
            return try digest(node, folder) != known
        }
        guard let contentDiffers else {
            // As if not looked at yet.
            (node.stamp, node.attributes, node.target, node.isRacy) = (before, attributes, target, true)
            return
        }
        let sameLooks =
            before.mode == stamp.mode && before.uid == stamp.uid && before.gid == stamp.gid
            && before.modified == stamp.modified && before.rdev == stamp.rdev && before.links == stamp.links
            && attributes == node.attributes && target == node.target
        if contentDiffers || !sameLooks {
            difference.changes.append(.init(node: node, isSameFile: true, contentDiffers: contentDiffers))
        }
    }

    private func add(_ name: [UInt8], _ parent: TreeNode, _ stamp: Stamp, _ folder: FileDescriptor) throws -> TreeNode?
    {
        guard let kind = FileEntry.Kind(mode: stamp.mode) else {
            throw ContainerError("\(root.name)\(text(parent.path)): an entry of unknown type")
        }
        let node = TreeNode(name: name, parent: parent, stamp: stamp, kind: kind, isRacy: stamp.isRacy(at: now))
        if node.path.count > FileEntry.longestPath {
            throw ContainerError("\(root.name): paths of more than \(FileEntry.longestPath) bytes are not carried")
        }
        let isThere = try unlessReplaced {
            try fill(node, folder: folder)
            return true
        }
        if isThere == nil { return nil }
        if kind == .regular { files[stamp.inode] = node }
        if stamp.links > 1 && kind != .directory {
            metLinks = true
            difference.linked[stamp.inode, default: []].append(node)
        }
        difference.changes.append(.init(node: node, isSameFile: false, contentDiffers: kind == .regular))
        if kind == .directory { try enter(node, folder, readAgain: true) }
        return node
    }

    /// Nodes are kept until the walk is over: the memory of a freed node could become another node, which would be
    /// taken for the first.
    private var goneNodes: [ObjectIdentifier: TreeNode] = [:]

    private func isGone(_ node: TreeNode) -> Bool { goneNodes[ObjectIdentifier(node)] != nil }

    private func gone(_ node: TreeNode) {
        difference.removed.append(node.path)
        forget(node)
    }

    private func forget(_ node: TreeNode) {
        node.forEach {
            remember($0)
            goneNodes[ObjectIdentifier($0)] = $0
            if $0.kind == .directory { watch?.remove($0) }
            if $0.stamp.links > 1, $0.kind != .directory { metLinks = true }
            if files[$0.stamp.inode] === $0 { files[$0.stamp.inode] = nil }
        }
    }

    /// A regular file that is no longer where it was; it may turn up elsewhere.
    private func remember(_ node: TreeNode) {
        // What this walk has only just met the other side does not have.
        if node.kind == .regular && node.stamp.links == 1 && !node.isNew {
            difference.moved[node.stamp.inode] = (node.path, node)
        }
    }

    private func open(_ node: TreeNode, _ folder: FileDescriptor) throws(KernelError) -> FileDescriptor {
        FileDescriptor(
            owning: try checkC(
                openat(folder.number, node.cName, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
                "opening \(text(node.path)) in \(root.name)"))
    }

    private func digest(_ node: TreeNode, _ folder: FileDescriptor) throws -> Digest {
        let file = FileDescriptor(
            owning: try checkC(
                openat(folder.number, node.cName, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC),
                "opening \(text(node.path)) in \(root.name)"))
        return try FileContent.digest(
            of: file, size: node.stamp.size, name: text(node.path), whileWorking: whileWorking
        ).0
    }

    /// Reads a link's target and the extended attributes.
    private func fill(_ node: TreeNode, folder: FileDescriptor) throws(KernelError) {
        if node.kind == .symbolicLink {
            var target = [CChar](repeating: 0, count: 4097)
            let count = try checkC(
                readlinkat(folder.number, node.cName, &target, 4096), "reading the link \(text(node.path))")
            node.target = target[..<count].map { UInt8(bitPattern: $0) }
        }
        node.attributes = try ExtendedAttributes.read(folder, node.cName, text(node.path))
    }
}

extension KernelError {
    /// An entry is gone, or is no longer what the last look saw, as a running container makes it.
    var saysReplaced: Bool { [ENOENT, ENOTDIR, ELOOP, ENXIO, EINVAL, EISDIR].contains(errno.rawValue) }
}

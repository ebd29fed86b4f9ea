// The destination's side of a tree: receives it whole, then the changes.
import CLinux
import Glibc
import LinuxKernel

/// Receives one tree of files below a root. Whatever the stream holds, nothing outside of the root is touched; after
/// an error the tree's content is undefined and it must be removed. Not for use by several threads at once.
public final class FileTreeReceiver {
    private let root: TreeRoot
    private let writer: TreeWriter
    private let store: ContentStore?
    private let keeping: Set<TreePath>
    private let placeholder: TreePath?
    private let limits: TreeLimits
    /// Called again and again during long steps; throws to end them.
    public var whileWorking: () throws -> Void = {}
    /// Changes have moved, replaced or removed files: what was opened by its path before may not be what is there now.
    public private(set) var hasMovedFiles = false

    /// - Parameters:
    ///   - store: contents that this host has already; nil: all are asked for and none is kept.
    ///   - keeping: mount points below the root, left alone.
    ///   - placeholder: an empty file to make in the root folder, for the runtime to mount the stub on: made here, so
    ///     that the runtime changes no time of the root.
    public init(
        root: TreeRoot, store: ContentStore? = nil, keeping: Set<TreePath> = [], placeholder: String? = nil,
        limits: TreeLimits = TreeLimits()
    ) {
        self.root = root
        writer = TreeWriter(root: root)
        self.store = store
        self.keeping = keeping
        self.placeholder = placeholder.map { Array($0.utf8) }
        self.limits = limits
    }

    /// Receives a whole tree from `FileTreeSender.sendAll`; what was in the root before is removed.
    @discardableResult
    public func receiveAll(over stream: any ByteStream) throws -> TreeReport {
        try TreeProtocol.readHeader(TreeProtocol.treeMagic, from: stream)
        let entries = try Self.entries(
            decoding: stream.readBlock(atMost: limits.description, what: "a tree's description"), limits: limits,
            root: root.name)
        // What is here already, opened: it stays available although somebody prunes the store meanwhile.
        var needed: [Int] = []
        for (number, entry) in entries.enumerated() where entry.kind == .regular && entry.linkedTo == nil {
            try whileWorking()
            if try entry.digest.flatMap({ try store?.open($0, whileWorking: whileWorking) }) == nil {
                needed.append(number)
            }
        }
        try root.removeContents(keeping: keeping)
        // Where there is not room for both, contents are not kept for the next time.
        let asked = Self.total(needed.map { entries[$0] })
        let keeper = try roomBesides(entries) >= asked ? store : nil
        var needs = ByteWriter()
        for number in needed { needs.put(UInt32(number)) }
        try stream.writeBlock(needs.bytes)
        try stream.flush()

        var report = TreeReport(entries: entries.count)
        var next = needed.makeIterator()
        var number = next.next()
        for (index, entry) in entries.enumerated() {
            try whileWorking()
            try writer.make(entry)
            if entry.kind == .regular && entry.linkedTo == nil {
                if index == number {
                    report.contents += 1
                    report.contentBytes += try receive(entry, from: stream, keepingIn: keeper)
                    number = next.next()
                } else {
                    try copyFromStore(entry)
                    report.cached += 1
                }
            }
            if entry.kind != .directory { try writer.setMetadata(entry) }
        }
        if let placeholder, try root.status(placeholder) == nil {
            let entry = FileEntry(
                path: placeholder, kind: .regular, mode: 0o755, uid: 0, gid: 0,
                modified: Timestamp(seconds: 0, nanoseconds: 0))
            try writer.make(entry)
            try writer.setMetadata(entry)
        }
        // Making entries changes their folder's time: folders last, the deepest first.
        for entry in entries.reversed() where entry.kind == .directory { try writer.setMetadata(entry) }
        try stream.write([1])
        try stream.flush()
        return report
    }

    /// Applies what `TreeChanges.write` wrote.
    @discardableResult
    public func apply(from stream: any ByteStream) throws -> TreeReport {
        try TreeProtocol.readHeader(TreeProtocol.changesMagic, from: stream)
        var reader = ByteReader(try stream.readBlock(atMost: limits.description, what: "a tree's changes"))
        // No `map`: it would reserve memory for as many as the other side announces.
        var removed: [TreePath] = []
        for _ in 0..<(try reader.integer(UInt32.self)) { removed.append(try path(&reader)) }
        var renames: [(TreePath, TreePath)] = []
        for _ in 0..<(try reader.integer(UInt32.self)) { renames.append((try path(&reader), try path(&reader))) }
        let staging = try stage(renames)
        for path in removed { try root.remove(path) }
        if !removed.isEmpty || !renames.isEmpty { hasMovedFiles = true }
        var waiting = Dictionary(staging.moves.map { ($0.to, $0.staged) }, uniquingKeysWith: { _, last in last })
        var folders: [FileEntry] = []
        var report = TreeReport(entries: removed.count)
        let count = try reader.integer(UInt32.self)
        for _ in 0..<count {
            let entry = try Self.entry(&reader, limits, root.name)
            let flags = try reader.integer(UInt8.self)
            if let staged = waiting.removeValue(forKey: entry.path) { try unstage(staged, to: entry.path) }
            if flags & 2 == 0, entry.kind != .directory { hasMovedFiles = true }
            try writer.make(entry, keepingFile: flags & 2 != 0)
            report.entries += 1
            if flags & 1 != 0 {
                guard entry.kind == .regular, entry.linkedTo == nil else {
                    throw ContainerError("\(text(entry.path)): only regular files have content")
                }
                let file = try writer.open(entry.path)
                report.contents += 1
                report.contentBytes += try TreeProtocol.receiveContent(
                    from: stream, into: file, flags & 2 == 0 ? .new : flags & 4 == 0 ? .replacing : .patching,
                    limits: limits, name: text(entry.path), whileWorking: whileWorking
                ).received
            }
            if entry.kind == .directory { folders.append(entry) } else { try writer.setMetadata(entry) }
        }
        guard reader.left == 0, waiting.isEmpty else {
            throw ContainerError("receiving changes of \(root.name): they are not complete")
        }
        try staging.remove(root)
        for entry in folders.reversed() { try writer.setMetadata(entry) }
        return report
    }

    /// The same from bytes.
    @discardableResult
    public func apply(_ bytes: [UInt8]) throws -> TreeReport {
        let stream = MemoryStream(bytes)
        let report = try apply(from: stream)
        guard stream.isAtEnd else { throw ContainerError("receiving changes of \(root.name): more than they announce") }
        return report
    }
}

extension FileTreeReceiver {
    /// The entries of a whole tree, from a description that may come from an enemy.
    static func entries(decoding bytes: [UInt8], limits: TreeLimits, root: String) throws -> [FileEntry] {
        var reader = ByteReader(bytes)
        var entries: [FileEntry] = []
        while reader.left > 0 { entries.append(try entry(&reader, limits, root)) }
        guard entries.first?.path.isEmpty == true, entries.dropFirst().allSatisfy({ !$0.path.isEmpty }) else {
            throw ContainerError("a tree's description does not begin with its root")
        }
        return entries
    }

    /// One that is not larger than a file may be here: so many as a description has room for add up to a number.
    private static func entry(_ reader: inout ByteReader, _ limits: TreeLimits, _ root: String) throws -> FileEntry {
        let entry = try FileEntry(decoding: &reader)
        guard entry.size <= limits.fileSize else {
            throw ContainerError(
                "\(text(entry.path)) in \(root) has \(entry.size) bytes, and a file may have \(limits.fileSize)")
        }
        return entry
    }

    private func path(_ reader: inout ByteReader) throws -> TreePath {
        let path = try reader.string(atMost: FileEntry.longestPath)
        try FileEntry.check(path)
        return path
    }

    /// Bytes that are free besides what the entries take.
    ///
    /// - Throws: when they do not fit.
    private func roomBesides(_ entries: [FileEntry]) throws -> UInt64 {
        let free = try root.freeSpace()
        let needed = Self.total(entries)
        if needed > free.bytes {
            throw ContainerError(
                "\(root.name) needs \(needed >> 20) MiB and its file system has \(free.bytes >> 20) MiB free: make room "
                    + "there, or give the host another state folder")
        }
        // A file system that counts no inodes says 0.
        if free.inodes > 0 && UInt64(entries.count) > free.inodes {
            throw ContainerError(
                "\(root.name) needs \(entries.count) inodes and its file system has \(free.inodes) free: remove files there, or "
                    + "give the host another state folder")
        }
        return free.bytes - needed
    }

    /// Bytes that contents take up; the most there can be if an enemy says more.
    private static func total(_ entries: [FileEntry]) -> UInt64 {
        entries.reduce(0) { sum, entry in
            let (next, overflows) = sum.addingReportingOverflow(min(entry.allocated, entry.size))
            return overflows ? .max : next
        }
    }

    private func receive(_ entry: FileEntry, from stream: any ByteStream, keepingIn store: ContentStore?) throws
        -> UInt64
    {
        let file = try writer.open(entry.path)
        guard let store else {
            return try TreeProtocol.receiveContent(
                from: stream, into: file, .new, limits: limits, name: text(entry.path), whileWorking: whileWorking
            ).received
        }
        let (kept, path) = try store.newFile()
        defer { unlink(path) }
        let (digest, received) = try TreeProtocol.receiveContent(
            from: stream, into: kept, .new, limits: limits, name: text(entry.path), whileWorking: whileWorking)
        try FileContent.copy(kept, to: file, name: text(entry.path), whileWorking: whileWorking)
        try store.keep(path, as: digest)
        return received
    }

    private func copyFromStore(_ entry: FileEntry) throws {
        guard let digest = entry.digest, let content = try store?.open(digest, whileWorking: whileWorking) else {
            throw ContainerError("content \(entry.digest.map(\.description) ?? "?") has left the store; try again")
        }
        try FileContent.copy(
            content, to: writer.open(entry.path), name: text(entry.path), whileWorking: whileWorking)
        store?.touch(content)
    }

    /// Files on their way from one path to another: a swap of two needs a third place.
    private struct Staging {
        var folder: TreePath?
        var moves: [(staged: TreePath, to: TreePath)] = []

        /// The root's times: the folder was made in it, which the source knows nothing of.
        var rootTimes: [timespec] = []

        func remove(_ root: TreeRoot) throws(KernelError) {
            guard let folder else { return }
            try root.remove(folder)
            try checkC(futimens(root.descriptor.number, rootTimes), "setting the time of \(root.name)")
        }
    }

    private func stage(_ renames: [(TreePath, TreePath)]) throws -> Staging {
        var staging = Staging()
        if renames.isEmpty { return staging }
        var folder = Array(".apus-moving".utf8)
        while try root.status(folder) != nil { folder.append(UInt8(ascii: "-")) }
        staging.folder = folder
        if let status = try root.status([]) { staging.rootTimes = [status.st_atim, status.st_mtim] }
        try checkC(mkdirat(root.descriptor.number, cString(folder), 0o700), "making \(text(folder)) in \(root.name)")
        for (number, (from, to)) in renames.enumerated() {
            let staged = folder + Array("/\(number)".utf8)
            guard let present = try root.status(from), FileEntry.Kind(mode: present.st_mode) == .regular else {
                throw ContainerError("renaming \(text(from)) in \(root.name): there is no such file")
            }
            try move(from, to: staged)
            staging.moves.append((staged, to))
        }
        return staging
    }

    private func unstage(_ staged: TreePath, to path: TreePath) throws {
        try root.remove(path)
        try move(staged, to: path)
    }

    private func move(_ from: TreePath, to path: TreePath) throws {
        let (fromFolder, fromName) = try root.parent(of: from)
        let (toFolder, toName) = try root.parent(of: path)
        try checkC(
            renameat(fromFolder.number, fromName, toFolder.number, toName),
            "renaming \(text(from)) to \(text(path)) in \(root.name)")
    }
}

// The container's files in a session: its root file system and its temporary file systems, each a tree.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel

/// A stream of bytes inside a session: what is written goes out in `files` frames, what is read comes from them.
private final class FrameStream: ByteStream {
    private let connection: Connection
    private var output: [UInt8] = []
    private var input: [UInt8] = [], position = 0

    init(_ connection: Connection) { self.connection = connection }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        output += bytes
        if output.count >= 1 << 20 { try flush() }
    }

    func flush() throws {
        try output.withUnsafeBytes { bytes in
            for start in stride(from: 0, to: bytes.count, by: FrameKind.files.longest) {
                let end = min(bytes.count, start + FrameKind.files.longest)
                try connection.send(.files, UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
            }
        }
        output.removeAll(keepingCapacity: true)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws {
        try flush()
        var rest = buffer
        while !rest.isEmpty {
            if position == input.count {
                let frame = try connection.receive()
                guard frame.kind == .files else { throw connection.unexpected(frame, "files") }
                (input, position) = ([UInt8](frame.payload), 0)
                continue
            }
            let n = min(rest.count, input.count - position)
            input[position..<position + n].withUnsafeBytes { rest.copyMemory(from: $0) }
            position += n
            rest = UnsafeMutableRawBufferPointer(rebasing: rest[n...])
        }
    }
}

extension WireMappedFile {
    /// The files that a process has mapped, with their digests.
    static func all(
        of layout: AddressSpaceReader, pid: Int32, host: SessionHost, whileWorking: () throws -> Void
    ) throws -> [WireMappedFile] {
        let cache = DigestCache(file: host.layout.digestCacheFile)
        defer { try? cache.save() }
        return try MappedFiles.describe(
            layout.files, root: TreeRoot(process: pid, folder: "/"), cache: cache, whileWorking: whileWorking
        ).map {
            var file = WireMappedFile()
            (file.path, file.size, file.digest) = ($0.path, $0.size, $0.digest ?? "")
            return file
        }
    }
}

/// The source's trees.
final class SourceTrees {
    private let trees: [FileTreeSender]
    private let mountPoints: [String]

    /// - Parameter whileWorking: called again and again during long steps; throws to end them.
    init(_ container: RunningContainer, _ host: SessionHost, whileWorking: @escaping () throws -> Void) throws {
        let cache = DigestCache(file: host.layout.digestCacheFile)
        let config = try host.layout.container(container.name).config()
        mountPoints = config.trees.map(\.mountPoint)
        trees = try config.trees.map { try $0.sender(rootfs: container.rootfs, pid: container.pid, cache: cache) }
        // Without it what changes of a large file is found by reading it.
        let writes = try? FileWrites()
        for tree in trees { (tree.whileWorking, tree.writes) = (whileWorking, writes) }
        (self.cache, pid) = (cache, container.pid)
    }
    private let cache: DigestCache
    private let pid: Int32
    /// Files whose content may change without a trace in their stamps.
    private var suspects: Set<UInt64> = []

    /// Sends the root file system, or the temporary ones, whole.
    func send(root: Bool, over connection: Connection) throws {
        suspects.formUnion(try SharedMappings.inodes(of: pid))
        for (index, tree) in trees.enumerated() where (index == 0) == root {
            try announce(index, changes: false, connection)
            try tree.sendAll(over: FrameStream(connection), written: OpenFiles.written(by: pid))
        }
        try cache.save()
    }

    /// Sends what has changed while the container runs.
    func sendChanges(over connection: Connection) throws {
        suspects.formUnion(try SharedMappings.inodes(of: pid))
        let written = try OpenFiles.written(by: pid)
        for (index, tree) in trees.enumerated() {
            guard let changes = try tree.changes(suspects: suspects, written: written) else { continue }
            try announce(index, changes: true, connection)
            try changes.write(to: FrameStream(connection))
        }
        // What was mapped meanwhile may have been stored to after it was looked at.
        suspects.formUnion(try SharedMappings.inodes(of: pid))
    }

    /// Finds the last changes, while the container is stopped. They count as sent, so `sendUnsent` has to follow.
    ///
    /// - Parameters:
    ///   - written: inodes of files that are open for writing.
    ///   - maps: of the stopped process.
    func findLastChanges(written: Set<UInt64>, maps: [MapEntry]) throws {
        suspects.formUnion(SharedMappings.inodes(of: pid, maps))
        for (index, tree) in trees.enumerated() {
            guard let changes = try tree.changes(suspects: suspects, isStill: true, written: written) else { continue }
            unsent.append((index, try changes.encoded()[...]))
        }
    }
    /// What is left to be sent of the last changes, by tree.
    private var unsent: [(tree: Int, content: ArraySlice<UInt8>)] = []
    private var isAnnounced = false

    /// Files that had to be compared as a whole for the changes that were sent last, and the milliseconds that all of
    /// this took: it has to be done again while the container is stopped, if they are written to until then.
    var compared: (names: [String], milliseconds: Double) {
        let all = zip(mountPoints, trees).flatMap { place, tree in
            tree.compared.map { ((place == "/" ? "" : place) + $0.name, $0.milliseconds) }
        }
        return (all.map(\.0), all.reduce(0) { $0 + $1.1 })
    }

    /// Sends them, or what is left of them if the freeze has come to its limit in the middle: a connection sends a
    /// frame that it has begun in any case.
    ///
    /// - Parameter between: called before each frame; what it throws leaves the rest for the next call.
    func sendUnsent(over connection: Connection, between: () throws -> Void = {}) throws {
        while let (tree, content) = unsent.first {
            try between()
            if !isAnnounced {
                isAnnounced = true
                try announce(tree, changes: true, connection)
            }
            let part = content.prefix(FrameKind.files.longest)
            unsent[0].content = content.dropFirst(part.count)
            if unsent[0].content.isEmpty {
                unsent.removeFirst()
                isAnnounced = false
            }
            try part.withUnsafeBytes { try connection.send(.files, $0) }
        }
    }

    private func announce(_ index: Int, changes: Bool, _ connection: Connection) throws {
        var tree = WireTree()
        (tree.tree, tree.changes) = (UInt32(index), changes)
        try connection.send(.tree, tree)
    }
}

/// The destination's trees.
final class DestinationTrees {
    private let directory: ContainerDirectory
    private let trees: [ContainerTree]
    private let store: ContentStore
    private var receivers: [Int: FileTreeReceiver] = [:]
    private let whileWorking: () throws -> Void
    /// The stub, once there is one: temporary file systems are its mounts.
    var pid: Int32? { didSet { receivers = receivers.filter { $0.key == 0 } } }

    /// - Parameter whileWorking: called again and again during long steps; throws to end them.
    init(
        config: ContainerConfig, directory: ContainerDirectory, host: SessionHost,
        whileWorking: @escaping () throws -> Void
    ) throws {
        (self.directory, self.whileWorking) = (directory, whileWorking)
        trees = config.trees
        store = try ContentStore(
            folder: host.layout.cacheFolder, digests: DigestCache(file: host.layout.digestCacheFile))
    }

    /// Receives a tree, or its changes.
    func receive(_ tree: Checked<WireTree>, over connection: Connection) throws {
        // A whole tree takes the place of what is there: only a container that does not run yet can take one.
        guard tree.changes || connection.state == .accepted || connection.state == .staged else {
            throw MigrationError.protocolViolation("a whole tree for a container that is being copied")
        }
        let receiver = try receiver(Int(tree.tree))
        if tree.changes {
            try receiver.apply(from: FrameStream(connection))
        } else {
            let stream = FrameStream(connection)
            try receiver.receiveAll(over: stream)
            try stream.flush()
        }
    }

    /// Files have been moved, replaced or removed since the trees were received whole.
    var haveMovedFiles: Bool { receivers.values.contains(where: \.hasMovedFiles) }

    private func receiver(_ index: Int) throws -> FileTreeReceiver {
        if let known = receivers[index] { return known }
        guard trees.indices.contains(index) else {
            throw MigrationError.protocolViolation("tree \(index), which the configuration does not have")
        }
        guard index == 0 || pid != nil else {
            throw MigrationError.protocolViolation("a temporary file system before its container")
        }
        let receiver = try trees[index].receiver(rootfs: directory.rootfs, pid: pid ?? 0, store: store)
        receiver.whileWorking = whileWorking
        receivers[index] = receiver
        return receiver
    }
}

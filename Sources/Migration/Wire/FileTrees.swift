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
        if output.isEmpty { return }
        try output.withUnsafeBytes { try connection.send(.files, $0) }
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
    static func all(of layout: AddressSpaceReader, pid: Int32, host: SessionHost) throws -> [WireMappedFile] {
        let cache = DigestCache(file: host.layout.digestCacheFile)
        defer { try? cache.save() }
        return try MappedFiles.describe(layout.files, root: TreeRoot(process: pid, folder: "/"), cache: cache).map {
            var file = WireMappedFile()
            (file.path, file.size, file.digest) = ($0.path, $0.size, $0.digest ?? "")
            return file
        }
    }
}

/// The source's trees.
final class SourceTrees {
    private let trees: [FileTreeSender]

    init(_ container: RunningContainer, _ host: SessionHost) throws {
        let cache = DigestCache(file: host.layout.digestCacheFile)
        let config = try host.layout.container(container.name).config()
        trees = try config.trees.map { try $0.sender(rootfs: container.rootfs, pid: container.pid, cache: cache) }
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
            try tree.sendAll(over: FrameStream(connection))
        }
        try cache.save()
    }

    /// Sends what has changed while the container runs.
    func sendChanges(over connection: Connection) throws {
        suspects.formUnion(try SharedMappings.inodes(of: pid))
        for (index, tree) in trees.enumerated() {
            guard let changes = try tree.changes(suspects: suspects) else { continue }
            try announce(index, changes: true, connection)
            try changes.write(to: FrameStream(connection))
        }
    }

    /// The last changes, found while the container is stopped.
    func lastChanges() throws -> [WireTreeChanges] {
        try trees.enumerated().compactMap { index, tree in
            guard let changes = try tree.changes(suspects: suspects, isStill: true) else { return nil }
            var message = WireTreeChanges()
            message.tree = UInt32(index)
            message.content = Data(try changes.encoded())
            return message
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
    /// The stub, once there is one: temporary file systems are its mounts.
    var pid: Int32? { didSet { receivers = receivers.filter { $0.key == 0 } } }

    init(config: ContainerConfig, directory: ContainerDirectory, host: SessionHost) throws {
        self.directory = directory
        trees = config.trees
        store = try ContentStore(
            folder: host.layout.cacheFolder, digests: DigestCache(file: host.layout.digestCacheFile))
    }

    /// Receives a tree, or its changes.
    func receive(_ tree: WireTree, over connection: Connection) throws {
        let receiver = try receiver(Int(tree.tree))
        if tree.changes {
            try receiver.apply(from: FrameStream(connection))
        } else {
            let stream = FrameStream(connection)
            try receiver.receiveAll(over: stream)
            try stream.flush()
        }
    }

    func apply(_ last: [WireTreeChanges]) throws {
        for changes in last { try receiver(Int(changes.tree)).apply([UInt8](changes.content)) }
    }

    private func receiver(_ index: Int) throws -> FileTreeReceiver {
        if let known = receivers[index] { return known }
        guard trees.indices.contains(index) else {
            throw MigrationError.protocolViolation("tree \(index), which the configuration does not have")
        }
        guard index == 0 || pid != nil else {
            throw MigrationError.protocolViolation("a temporary file system before its container")
        }
        let receiver = try trees[index].receiver(rootfs: directory.rootfs, pid: pid ?? 0, store: store)
        receivers[index] = receiver
        return receiver
    }
}

// The trees of files that a container has: its root file system and its tmpfs mounts.
import Glibc
import LinuxKernel

/// One tree of a container, as both hosts name it. The root file system comes first.
public struct ContainerTree: Codable, Sendable, Hashable {
    /// Where it is in the container: "/", "/dev/shm".
    public let mountPoint: String
    /// The container cannot write to it: it is sent once.
    public let isReadOnly: Bool
    /// Paths below it that other mounts cover, relative to it.
    public let covered: [String]
    public var isRoot: Bool { mountPoint == "/" }
}

extension ContainerConfig {
    /// The container's trees. Bind mounts show the host's files and are no part of it; /dev is the runtime's.
    public var trees: [ContainerTree] {
        let root = ContainerTree(mountPoint: "/", isReadOnly: rootIsReadOnly, covered: [Self.stubPath.dropping("/")])
        return [root]
            + temporaryFileSystems.map { path in
                let options = mounts.last { $0.destination == path }?.options ?? []
                let inside = mounts.map(\.destination).filter { $0.hasPrefix(path + "/") && $0 != path }
                return ContainerTree(
                    mountPoint: path, isReadOnly: options.contains("ro"),
                    covered: inside.map { $0.dropping(path + "/") }.sorted())
            }
    }
}

extension ContainerTree {
    private var coveredPaths: Set<TreePath> { Set(covered.map { Array($0.utf8) }) }

    /// The source's side.
    ///
    /// - Parameters:
    ///   - rootfs: the root file system on this host, by path: no mount of the container covers anything there.
    ///   - pid: a process of the container.
    public func sender(rootfs: String, pid: Int32, cache: DigestCache) throws -> FileTreeSender {
        FileTreeSender(
            root: try open(rootfs: rootfs, pid: pid), excluding: coveredPaths, isReadOnly: isReadOnly, cache: cache)
    }

    /// The destination's side. The root file system is received before the runtime makes the container, the others
    /// after it, through the stub's mount namespace.
    public func receiver(rootfs: String, pid: Int32, store: ContentStore?) throws -> FileTreeReceiver {
        FileTreeReceiver(
            root: try open(rootfs: rootfs, pid: pid), store: isRoot ? store : nil, keeping: coveredPaths,
            placeholder: isRoot ? covered.first : nil)
    }

    private func open(rootfs: String, pid: Int32) throws -> TreeRoot {
        if isRoot { return try TreeRoot(folder: rootfs) }
        let root = try TreeRoot(process: pid, folder: mountPoint)
        guard try root.isTemporary() else {
            throw ContainerError("\(mountPoint) of the container is no tmpfs: something else is mounted there")
        }
        return root
    }

    /// Bytes of files in it now.
    public func size(rootfs: String, pid: Int32) throws -> UInt64 {
        let scanner = TreeScanner(root: try open(rootfs: rootfs, pid: pid), excluding: coveredPaths)
        _ = try scanner.scan()
        var inodes: Set<UInt64> = []
        var bytes: UInt64 = 0
        scanner.top!.forEach { node in
            if node.kind == .regular && inodes.insert(node.stamp.inode).inserted { bytes += node.stamp.blocks * 512 }
        }
        return bytes
    }
}

extension String {
    fileprivate func dropping(_ prefix: String) -> String { String(dropFirst(prefix.count)) }
}

// Which entries of a tree something has happened to, told by inotify(7), so that a walk need not look at all of them.
import LinuxKernel

/// Watches the folders of one tree.
///
/// An event comes after what it tells of, so whoever takes the events first and looks afterwards misses nothing but
/// what the next events tell. Two things raise no event that leads to the entry: a store through a mapping, until the
/// last descriptor and mapping are gone, and a change by another name of the same file.
final class TreeWatch {
    /// What has happened in a folder.
    struct Touch {
        let folder: TreeNode
        var names: Set<[UInt8]> = []
    }

    private let events: FolderEvents
    /// Folders by the number of their watch. The kernel never uses a number twice.
    private var folders: [Int32: TreeNode] = [:]

    init() throws(KernelError) {
        events = try FolderEvents()
    }

    /// Watches a folder from now on: call it before its entries are read.
    ///
    /// - Returns: whether it was not watched before, so that anything may have happened in it.
    func add(_ node: TreeNode, _ folder: FileDescriptor) throws(KernelError) -> Bool {
        if let number = node.watch, folders[number] === node { return false }
        let number = try events.add("/proc/self/fd/\(folder.number)", text(node.path))
        node.watch = number
        folders[number] = node
        return true
    }

    /// A folder is gone. If it was moved within the tree its watch may belong to another node by now.
    func remove(_ node: TreeNode) {
        guard let number = node.watch, folders[number] === node else { return }
        folders[number] = nil
        events.remove(number)
    }

    /// What has happened between the last call and this one; nil: events were lost.
    func take() throws(KernelError) -> [Touch]? {
        var touches: [Int32: Touch] = [:], wereLost = false
        try events.take { event in
            if event.isOverflow { wereLost = true }
            guard let folder = folders[event.watch] else { return }
            // It was removed, and another one may stand in its place already, even with the same inode number.
            if event.isEnd { folders[event.watch] = nil }
            // In place: a copy of the names for each event would take longer than the program needs for the next.
            let names: Set<[UInt8]> = event.name.isEmpty ? [] : [event.name]
            touches[event.watch, default: Touch(folder: folder)].names.formUnion(names)
        }
        return wereLost ? nil : Array(touches.values)
    }
}

// Which entries of a tree something has happened to, told by inotify(7), so that a walk need not look at all of them.
import CLinux
import Glibc
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

    private let watch: FileDescriptor
    /// Folders by the number of their watch. The kernel never uses a number twice.
    private var folders: [Int32: TreeNode] = [:]

    init() throws(KernelError) {
        watch = FileDescriptor(owning: try check(clx_watch_new(), "making an inotify instance"))
    }

    /// Watches a folder from now on: call it before its entries are read.
    ///
    /// - Returns: whether it was not watched before, so that anything may have happened in it.
    func add(_ node: TreeNode, _ folder: FileDescriptor) throws(KernelError) -> Bool {
        if let number = node.watch, folders[number] === node { return false }
        let number = try check(
            clx_watch_add(watch.number, "/proc/self/fd/\(folder.number)"), "watching \(text(node.path))")
        node.watch = number
        folders[number] = node
        return true
    }

    /// A folder is gone. If it was moved within the tree its watch may belong to another node by now.
    func remove(_ node: TreeNode) {
        guard let number = node.watch, folders[number] === node else { return }
        folders[number] = nil
        _ = clx_watch_remove(watch.number, number)
    }

    /// What has happened between the last call and this one; nil: events were lost. What happens meanwhile is for the
    /// next: a busy program makes events faster than a busy host reads them.
    func take() throws(KernelError) -> [Touch]? {
        var touches: [Int32: Touch] = [:], wereLost = false, failure: KernelError?
        var left = Int(try check(clx_bytes_to_read(watch.number), "counting events of files"))
        withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 8) { buffer in
            while left > 0 {
                let count = read(watch.number, buffer.baseAddress!, buffer.count)
                if count < 0, errno == EINTR { continue }
                if count < 0, errno != EAGAIN { failure = KernelError("reading events of files", Errno(errno)) }
                if count <= 0 { return }
                left -= count
                var offset = 0
                while offset + 16 <= count {
                    // struct inotify_event: watch 4, mask 4, cookie 4, length 4, then the name, filled up with zeros.
                    // SAFETY: the kernel filled `count` bytes with whole events.
                    let number = buffer.loadUnaligned(fromByteOffset: offset, as: Int32.self)
                    let mask = buffer.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self)
                    let length = Int(buffer.loadUnaligned(fromByteOffset: offset + 12, as: UInt32.self))
                    let name = buffer[(offset + 16)..<(offset + 16 + length)].prefix { $0 != 0 }
                    offset += 16 + length
                    if mask & 0x4000 /* IN_Q_OVERFLOW */ != 0 { wereLost = true }
                    guard let folder = folders[number] else { continue }
                    // It was removed, and another one may stand in its place already, even with the same inode number.
                    if mask & 0x8000 /* IN_IGNORED */ != 0 { folders[number] = nil }
                    // In place: a copy of the names for each event would take longer than the program needs for the next.
                    let names: Set<[UInt8]> = name.isEmpty ? [] : [Array(name)]
                    touches[number, default: Touch(folder: folder)].names.formUnion(names)
                }
            }
        }
        if let failure { throw failure }
        return wereLost ? nil : Array(touches.values)
    }
}

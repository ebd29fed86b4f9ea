// A folder that stands for the root of a tree, below which paths are resolved by the kernel so that no name and no
// symbolic link leads out of it.
import CLinux
import Glibc
import LinuxKernel

/// A path below a tree's root as the kernel has it: bytes (names need not be UTF-8) with '/' between names, none at
/// its ends. Empty: the root itself.
public typealias TreePath = [UInt8]

/// A path as text for messages.
func text(_ path: TreePath) -> String { "/" + String(decoding: path, as: UTF8.self) }

/// The open root folder of a tree.
public final class TreeRoot: Sendable {
    /// The folder's descriptor (O_DIRECTORY, readable).
    public let descriptor: FileDescriptor
    /// Where it is, for messages.
    public let name: String

    /// A folder of the host. The path's last name must not be a symbolic link.
    public init(folder path: String) throws(KernelError) {
        descriptor = try FileDescriptor(opening: path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        name = path
    }

    /// A folder as a process sees it: `path` is resolved in the process's root directory and mount namespace, and
    /// absolute links in it stay inside. The process need not run.
    public init(process pid: Int32, folder path: String) throws(KernelError) {
        let operation = "opening \(path) as pid \(pid) sees it"
        let root = try FileDescriptor(opening: "/proc/\(pid)/root", clx_O_PATH | O_DIRECTORY)
        let relative = path == "/" ? "." : path
        descriptor = FileDescriptor(
            owning: try check(
                clx_openat2(
                    root.number, relative, UInt64(O_RDONLY | O_DIRECTORY), 0,
                    clx_RESOLVE_IN_ROOT | clx_RESOLVE_NO_MAGICLINKS), operation))
        name = "/proc/\(pid)/root\(path)"
    }

    /// Opens a path below the root without ever following a symbolic link, leaving the root or entering a mount.
    func open(_ path: TreePath, _ flags: Int32, mode: UInt64 = 0) throws(KernelError) -> FileDescriptor {
        let resolve = clx_RESOLVE_BENEATH | clx_RESOLVE_NO_SYMLINKS | clx_RESOLVE_NO_MAGICLINKS | clx_RESOLVE_NO_XDEV
        let name = cString(path.isEmpty ? [UInt8(ascii: ".")] : path)
        return FileDescriptor(
            owning: try check(
                clx_openat2(descriptor.number, name, UInt64(UInt32(bitPattern: flags)), mode, resolve),
                "opening \(text(path)) in \(self.name)"))
    }

    /// The open parent folder of a path and the path's last name: what every call that changes a folder takes.
    func parent(of path: TreePath) throws(KernelError) -> (folder: FileDescriptor, name: [CChar]) {
        guard let slash = path.lastIndex(of: UInt8(ascii: "/")) else { return (descriptor, cString(path)) }
        let folder = try open(Array(path[..<slash]), O_RDONLY | O_DIRECTORY)
        return (folder, cString(Array(path[(slash + 1)...])))
    }

    /// lstat(2) of a path below the root; nil if there is nothing.
    func status(_ path: TreePath) throws(KernelError) -> stat? {
        let (folder, name): (FileDescriptor, [CChar])
        do throws(KernelError) {
            (folder, name) = try path.isEmpty ? (descriptor, cString([UInt8(ascii: ".")])) : parent(of: path)
        } catch {
            if error.errno == .noEntry || error.errno == Errno(ENOTDIR) { return nil }
            throw error
        }
        var status = stat()
        if fstatat(folder.number, name, &status, AT_SYMLINK_NOFOLLOW) != 0 {
            if errno == ENOENT { return nil }
            try checkC(Int32(-1), "examining \(text(path)) in \(self.name)")
        }
        return status
    }

    /// Removes a path with all that is below it; nothing there is no error.
    func remove(_ path: TreePath) throws(KernelError) {
        guard let status = try status(path) else { return }
        let isFolder = status.st_mode & S_IFMT == S_IFDIR
        if isFolder { try removeContents(path) }
        let (folder, name) = try parent(of: path)
        try checkC(
            unlinkat(folder.number, name, isFolder ? AT_REMOVEDIR : 0), "removing \(text(path)) in \(self.name)")
    }

    /// Empties a folder below the root, except for the paths in `keeping` and the folders that lead to them.
    public func removeContents(_ path: TreePath = [], keeping kept: Set<TreePath> = []) throws(KernelError) {
        let folder = try open(path, O_RDONLY | O_DIRECTORY)
        for name in try FolderReader.names(folder, in: text(path)) {
            let child = path.isEmpty ? name : path + [UInt8(ascii: "/")] + name
            if kept.contains(child) { continue }
            if kept.contains(where: { $0.starts(with: child + [UInt8(ascii: "/")]) }) {
                try removeContents(child, keeping: kept)
            } else {
                try remove(child)
            }
        }
    }

    /// Bytes and inodes free on the tree's file system.
    public func freeSpace() throws(KernelError) -> (bytes: UInt64, inodes: UInt64) {
        var type: Int64 = 0
        var bytes: UInt64 = 0
        var inodes: UInt64 = 0
        try check(clx_fstatfs(descriptor.number, &type, &bytes, &inodes), "asking for the space free in \(name)")
        return (bytes, inodes)
    }

    /// Whether the tree is on a tmpfs.
    public func isTemporary() throws(KernelError) -> Bool { try fileSystem() == 0x0102_1994 /* TMPFS_MAGIC */ }

    /// Whether the tree is of a procfs.
    func isProcfs() throws(KernelError) -> Bool { try fileSystem() == 0x9fa0 /* PROC_SUPER_MAGIC */ }

    private func fileSystem() throws(KernelError) -> Int64 {
        var type: Int64 = 0
        var bytes: UInt64 = 0
        var inodes: UInt64 = 0
        try check(clx_fstatfs(descriptor.number, &type, &bytes, &inodes), "asking for the file system of \(name)")
        return type
    }
}

/// Bytes and a closing zero.
func cString(_ bytes: [UInt8]) -> [CChar] { bytes.map { CChar(bitPattern: $0) } + [0] }

/// Reads folders with getdents64(2): readdir(3) needs a stream for each and its names pass through a fixed array.
enum FolderReader {
    /// The names in an open folder, without "." and "..", in the file system's order.
    static func names(_ folder: FileDescriptor, in path: @autoclosure () -> String) throws(KernelError) -> [[UInt8]] {
        var names: [[UInt8]] = []
        try checkC(lseek(folder.number, 0, SEEK_SET), "reading folder \(path())")
        var failure: KernelError?
        withUnsafeTemporaryAllocation(byteCount: 32768, alignment: 8) { buffer in
            while true {
                let count = clx_getdents64(folder.number, buffer.baseAddress, buffer.count)
                if count < 0 { failure = KernelError("reading folder \(path())", Errno(Int32(-count))) }
                if count <= 0 { return }
                var offset = 0
                while offset < count {
                    // struct linux_dirent64: inode 8, offset 8, length 2, type 1, then the name and a zero.
                    // SAFETY: the kernel filled `count` bytes with whole records.
                    let length = Int(buffer.loadUnaligned(fromByteOffset: offset + 16, as: UInt16.self))
                    let start = buffer.baseAddress! + offset + 19
                    let size = strlen(start.assumingMemoryBound(to: CChar.self))
                    let name = UnsafeRawBufferPointer(start: start, count: size)
                    let isDot = size == 1 && name[0] == 46 || size == 2 && name[0] == 46 && name[1] == 46
                    if !isDot { names.append(Array(name)) }
                    offset += length
                }
            }
        }
        if let failure { throw failure }
        return names
    }
}

// Makes the entries of a tree below a root, from descriptions that may come from an enemy: every path is resolved by
// the kernel below the root and through no symbolic link.
import CLinux
import Glibc
import LinuxKernel

struct TreeWriter {
    let root: TreeRoot

    /// Makes an entry with nothing in it (content and metadata come later). What stands in its place is removed, but
    /// for a folder where a folder is wanted, and for a regular file if `keepingFile`.
    func make(_ entry: FileEntry, keepingFile: Bool = false) throws {
        if entry.path.isEmpty { return }
        let what = "making \(text(entry.path)) in \(root.name)"
        if let present = try root.status(entry.path) {
            let kind = FileEntry.Kind(mode: present.st_mode)
            if kind == .directory && entry.kind == .directory { return }
            if let target = entry.linkedTo {
                if let other = try root.status(target), other.st_ino == present.st_ino { return }
            } else if keepingFile && kind == entry.kind && entry.kind == .regular {
                return
            }
            try root.remove(entry.path)
        }
        let (folder, name) = try root.parent(of: entry.path)
        if let target = entry.linkedTo {
            let (targetFolder, targetName) = try root.parent(of: target)
            try checkC(linkat(targetFolder.number, targetName, folder.number, name, 0), what)
            return
        }
        switch entry.kind {
        case .directory: try checkC(mkdirat(folder.number, name, 0o700), what)
        case .symbolicLink: try checkC(symlinkat(cString(entry.target), folder.number, name), what)
        case .regular:
            close(
                try checkC(
                    openat(folder.number, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600), what))
        case .fifo, .socket, .characterDevice, .blockDevice:
            try checkC(mknodat(folder.number, name, entry.kind.bits | 0o600, dev_t(entry.device)), what)
        }
    }

    /// Opens a regular file for writing; anything else at that path is refused.
    func open(_ path: TreePath) throws -> FileDescriptor {
        // O_NONBLOCK: never wait for a FIFO's reader.
        let file = try root.open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK)
        guard try Stamp(file, text(path)).mode & S_IFMT == S_IFREG else {
            throw ContainerError("refusing to write \(text(path)): it is not a regular file")
        }
        return file
    }

    /// Owner, mode, extended attributes and time of modification, in the order in which none undoes another.
    func setMetadata(_ entry: FileEntry) throws(KernelError) {
        if entry.linkedTo != nil { return }
        let (folder, name) =
            try entry.path.isEmpty ? (root.descriptor, cString([UInt8(ascii: ".")])) : root.parent(of: entry.path)
        let what = { "of \(text(entry.path)) in \(root.name)" }
        // A change of owner clears set-user-ID bits and capabilities.
        try checkC(
            fchownat(folder.number, name, entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW), "setting the owner \(what())")
        if entry.kind != .symbolicLink {
            try checkC(fchmodat(folder.number, name, entry.mode, 0), "setting the mode \(what())")
        }
        try ExtendedAttributes.write(entry.attributes, folder, name, what())
        let times = [entry.modified.timespec, entry.modified.timespec]
        try checkC(utimensat(folder.number, name, times, AT_SYMLINK_NOFOLLOW), "setting the time \(what())")
    }
}

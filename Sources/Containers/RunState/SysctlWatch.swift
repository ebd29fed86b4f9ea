// Whether a sysctl of a container is set, told by inotify(7): a write to a file below /proc/sys raises an event in its
// folder, as one to any other file does.
import CLinux
import Glibc
import LinuxKernel

/// Watches the folders of what a container has of its own below /proc/sys, in this host's procfs and in its own.
final class SysctlWatch: Sendable {
    private let watch: FileDescriptor
    private let folders: [Int32: String]

    /// Begins to watch. The calling thread is in the container's namespaces: by these the kernel chooses the files.
    init(pid: Int32, _ spaces: OwnSpaces) throws(KernelError) {
        watch = FileDescriptor(owning: try check(clx_watch_new(), "making an inotify instance"))
        var folders: [Int32: String] = [:]
        for root in ["/proc/sys/", "/proc/\(pid)/root/proc/sys/"] {
            for folder in Sysctls.folders(spaces, below: root) {
                let number = try check(clx_watch_add(watch.number, root + folder), "watching \(root + folder)")
                folders[number] = folder
            }
        }
        self.folders = folders
    }

    /// The path below /proc/sys of one that was set since the last call, or words for one that is not known; nil: none
    /// was.
    func change() -> String? {
        var found: String?
        withUnsafeTemporaryAllocation(byteCount: 16384, alignment: 8) { buffer in
            while true {
                let count = read(watch.number, buffer.baseAddress!, buffer.count)
                if count < 0, errno == EINTR { continue }
                if count <= 0 { return }
                var offset = 0
                while offset + 16 <= count {
                    // struct inotify_event: watch 4, mask 4, cookie 4, length 4, then the name, filled up with zeros.
                    // SAFETY: the kernel filled `count` bytes with whole events.
                    let number = buffer.loadUnaligned(fromByteOffset: offset, as: Int32.self)
                    let mask = buffer.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self)
                    let length = Int(buffer.loadUnaligned(fromByteOffset: offset + 12, as: UInt32.self))
                    let name = buffer[(offset + 16)..<(offset + 16 + length)].prefix { $0 != 0 }
                    offset += 16 + length
                    if mask & 0x4000 /* IN_Q_OVERFLOW */ != 0 { found = "that nobody can name" }
                    guard mask & 0x2 /* IN_MODIFY */ != 0, let folder = folders[number] else { continue }
                    let path = folder + "/" + String(decoding: name, as: UTF8.self)
                    if Sysctls.isOfContainers(path) { found = path }
                }
            }
        }
        return found
    }
}

extension Sysctls {
    /// Folders that hold those of the calling thread's namespaces, as far as the container has them of its own.
    ///
    /// - Parameter root: "/proc/sys/" of a procfs; one that is not there has none.
    static func folders(_ spaces: OwnSpaces, below root: String) -> [String] {
        let ofMessages = spaces.messages ? Set(Self.ofMessages.map { String($0[..<$0.lastIndex(of: "/")!]) }) : []
        return ofMessages.filter { access(root + $0, F_OK) == 0 }.sorted()
            + (spaces.network ? folders(in: "net", below: root) : [])
    }

    /// A folder and those in it.
    private static func folders(in folder: String, below root: String) -> [String] {
        guard let open = opendir(root + folder) else { return [] }
        defer { closedir(open) }
        var found = [folder]
        while let entry = readdir(open) {
            guard entry.pointee.d_type == DT_DIR else { continue }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { name in
                name.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { found += folders(in: "\(folder)/\(name)", below: root) }
        }
        return found
    }
}

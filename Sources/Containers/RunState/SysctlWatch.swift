// Whether a sysctl of a container is set, told by inotify(7): a write to a file below /proc/sys raises an event in its
// folder, as one to any other file does.
import Glibc
import LinuxKernel

/// Watches the folders of what a container has of its own below /proc/sys, in this host's procfs and in its own.
final class SysctlWatch: Sendable {
    private let events: FolderEvents
    private let folders: [Int32: String]

    /// Begins to watch. The calling thread is in the container's namespaces: by these the kernel chooses the files.
    init(pid: Int32, _ spaces: OwnSpaces) throws(KernelError) {
        events = try FolderEvents()
        var folders: [Int32: String] = [:]
        // A container without a procfs may have any other folder there.
        let own = try? TreeRoot(process: pid, folder: "/proc/sys")
        let isProcfs = try own?.isProcfs() == true
        for root in ["/proc/sys/"] + (isProcfs ? ["/proc/self/fd/\(own!.descriptor.number)/"] : []) {
            for folder in Sysctls.folders(spaces, below: root) {
                folders[try events.add(root + folder, "/proc/sys/\(folder)")] = folder
            }
        }
        self.folders = folders
    }

    /// A sysctl that was set since the last call, by its path below /proc/sys; nil: none was set.
    func change() -> String? {
        var found: String?
        do throws(KernelError) {
            try events.take { event in
                if event.isOverflow { found = "(one of many)" }
                guard event.isWrite, let folder = folders[event.watch] else { return }
                let path = folder + "/" + String(decoding: event.name, as: UTF8.self)
                if Sysctls.isOfContainers(path) { found = path }
            }
        } catch {
            // Who cannot look must not say that nothing is new.
            return "(not known: \(error))"
        }
        return found
    }
}

extension Sysctls {
    /// Folders that hold those of the calling thread's namespaces, as far as the container has them of its own.
    ///
    /// - Parameter root: a path of /proc/sys, with its closing slash. Where nothing is there, no folder is found.
    static func folders(_ spaces: OwnSpaces, below root: String) -> [String] {
        let ofMessages = spaces.messages ? Set(Self.ofMessages.map { String($0[..<$0.lastIndex(of: "/")!]) }) : []
        return ofMessages.filter { access(root + $0, F_OK) == 0 }.sorted()
            + (spaces.network ? folders(in: "net", below: root) : [])
    }

    /// A folder and all folders below it.
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

// Kernel parameters that a container has of its own.
import CLinux
import Glibc
import LinuxKernel

struct Sysctls: Codable, Sendable, Equatable {
    /// By path below /proc/sys.
    var values: [String: String] = [:]

    /// Those of the IPC namespace; all below "net" are the network namespace's.
    static let ofMessages = [
        "kernel/shmmax", "kernel/shmall", "kernel/shmmni", "kernel/shm_rmid_forced", "kernel/msgmax", "kernel/msgmni",
        "kernel/msgmnb", "kernel/sem", "fs/mqueue/queues_max", "fs/mqueue/msg_max", "fs/mqueue/msgsize_max",
        "fs/mqueue/msg_default", "fs/mqueue/msgsize_default",
    ]

    /// Those of the calling thread's namespaces, as far as the container has them of its own.
    ///
    /// - Parameter before: as they were noted earlier, which saves looking at what kind of file each of a thousand is.
    init(of spaces: OwnSpaces, before: Sysctls? = nil) throws(KernelError) {
        if spaces.messages { for path in Self.ofMessages { note(path) } }
        if spaces.network { try noteFolder("net", before) }
    }

    /// Whether containers may have this one of their own.
    static func isOfContainers(_ path: String) -> Bool { path.hasPrefix("net/") || ofMessages.contains(path) }

    private mutating func note(_ path: String) {
        // Secrets and switches cannot be read.
        if let value = try? SmallFile.text("/proc/sys/" + path) { values[path] = value }
    }

    private mutating func noteFolder(_ folder: String, _ before: Sysctls?) throws(KernelError) {
        for name in try Folder.names("/proc/sys/" + folder) {
            let path = "\(folder)/\(name)"
            if before?.values[path] != nil {
                note(path)
                continue
            }
            var status = stat()
            guard lstat("/proc/sys/" + path, &status) == 0 else { continue }
            if status.st_mode & S_IFMT == S_IFDIR { try noteFolder(path, before) }
            if status.st_mode & 0o600 == 0o600 { note(path) }
        }
    }

    /// - Throws: `ContainerError` for a parameter that is not the container's own.
    static func check(_ values: [String: String], _ spaces: OwnSpaces) throws(ContainerError) {
        for (path, value) in values {
            let parts = path.split(separator: "/", omittingEmptySubsequences: false)
            let isPlain = parts.allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." } && !path.utf8.contains(0)
            let isOwn = ofMessages.contains(path) ? spaces.messages : parts.first == "net" && spaces.network
            guard isPlain, isOwn, value.utf8.count < 4096 else {
                throw ContainerError("sysctl \(path): not one that a container has of its own on this host")
            }
        }
    }

    /// Sets them in the calling thread's namespaces. Twice: some set others.
    static func set(_ values: [String: String]) throws(KernelError) {
        for _ in 0..<2 {
            for (path, value) in values.sorted(by: { $0.key < $1.key }) {
                try SmallFile.write(value, to: "/proc/sys/" + path)
            }
        }
    }
}

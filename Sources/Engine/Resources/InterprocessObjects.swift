// Objects of an IPC namespace that belong to no process: System V message queues, semaphores and shared memory, and
// POSIX message queues. A container that moves leaves them behind, so they are looked for only to be refused by name.
import CLinux
import Glibc
import LinuxKernel

/// A container's IPC namespace, opened once: a look at what is in it costs some microseconds, also in the freeze.
public final class InterprocessObjects: Sendable {
    private let lists: [(what: String, file: FileDescriptor)]
    /// The root folder of the namespace's mqueue file system, mounted nowhere.
    private let queues: FileDescriptor?

    /// - Returns: nil for a process in the namespace of this host, whose objects are the host's.
    public init?(pid: Int32) throws {
        let path = "/proc/\(pid)/ns/ipc"
        if try ProcessFiles.link(path) == ProcessFiles.link("/proc/self/ns/ipc") { return nil }
        let namespace = try FileDescriptor(opening: path, O_RDONLY)
        (lists, queues) = try OwnThread.run("apus-ipc") {
            try check(
                clx_setns(namespace.number, 0x0800_0000 /* CLONE_NEWIPC */), "entering the IPC namespace of pid \(pid)")
            // Each of these files shows the namespace of the thread that has opened it.
            var lists: [(String, FileDescriptor)] = []
            for (name, what) in [
                ("msg", "System V message queue"), ("sem", "System V semaphores"), ("shm", "System V shared memory"),
            ] {
                // A kernel without them has no such file.
                guard let file = try? FileDescriptor(opening: "/proc/sysvipc/\(name)", O_RDONLY) else { continue }
                lists.append((what, file))
            }
            return (lists, try Self.queues())
        }.get()
    }

    /// A mount of the calling thread's mqueue file system that appears in no folder; nil if this kernel has none.
    private static func queues() throws(KernelError) -> FileDescriptor? {
        let configuration = "mqueue".withCString { name in
            clx_syscall(430, UInt64(UInt(bitPattern: name)), 1, 0, 0, 0, 0)  // fsopen, FSOPEN_CLOEXEC
        }
        if configuration == -Int(ENODEV) { return nil }
        let file = FileDescriptor(owning: Int32(try check(configuration, "opening the mqueue file system")))
        // fsconfig, FSCONFIG_CMD_CREATE; fsmount, FSMOUNT_CLOEXEC
        try check(clx_syscall(431, UInt64(file.number), 6, 0, 0, 0, 0), "making an mqueue file system")
        let mount = try check(clx_syscall(432, UInt64(file.number), 1, 0, 0, 0, 0), "mounting an mqueue file system")
        return FileDescriptor(owning: Int32(mount))
    }

    /// What is there, each with its name.
    public func found() throws -> [String] {
        var found: [String] = []
        for (what, file) in lists {
            var text = [UInt8](repeating: 0, count: 4096)
            let count = try text.withUnsafeMutableBytes { try file.read(at: 0, into: $0) }
            // A line of titles, then one an object: key and identifier first.
            for line in text[..<count].split(separator: UInt8(ascii: "\n")).dropFirst() {
                let fields = line.split(separator: UInt8(ascii: " ")).map { String(decoding: $0, as: UTF8.self) }
                if fields.count > 1 { found.append("\(what) \(fields[1]) (key \(fields[0]))") }
            }
        }
        if let queues { found += try names(in: queues).map { "POSIX message queue /\($0)" } }
        return found
    }

    private func names(in folder: FileDescriptor) throws(KernelError) -> [String] {
        var status = stat()
        try checkC(fstat(folder.number, &status), "looking at the POSIX message queues")
        // The size grows and shrinks with the entries.
        if status.st_size == 0 { return [] }
        let open = try checkC(openat(folder.number, ".", O_RDONLY | O_CLOEXEC), "opening the POSIX message queues")
        guard let stream = fdopendir(open) else { throw KernelError("listing the POSIX message queues", Errno(errno)) }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            // SAFETY: d_name is zero-terminated and lives until the next readdir.
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    /// The same as obstacles, for a container's first process.
    public func obstacles(_ pid: Int32) throws -> [Obstacle] {
        try found().map {
            Obstacle(
                pid: pid, process: processName(pid), subject: $0,
                reason: "in the container's IPC namespace, not carried yet")
        }
    }
}

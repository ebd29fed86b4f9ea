// Builds a small root file system and a bundle from programs of this machine, for tests and demonstrations.
import FoundationEssentials
import Glibc
import LinuxKernel

/// Describes a container to build: programs of this machine with the libraries they need, a little /etc, and a
/// config.json.
public struct BundleBuilder: Sendable {
    /// Programs of this machine, copied to the same paths with the libraries that ldd names.
    public var programs: [String]
    /// Names for the first program, as links beside it in /bin ("sh" for a busybox).
    public var links: [String] = []
    public var arguments: [String]
    public var environment: [String] = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    public var workingDirectory = "/"
    public var uid: UInt32 = 0
    public var gid: UInt32 = 0
    public var hostName = "apus"
    /// nil: a network namespace of its own without any link.
    public var networkNamespace: String?
    /// Limit of open files; lowered to this machine's hard limit, above which the runtime refuses to start.
    public var openFiles: UInt64 = 1024
    public var rootIsReadOnly = false
    /// tmpfs mounts besides /dev and /dev/shm: destination and size in bytes.
    public var temporaryFileSystems: [String: UInt64] = [:]
    /// What `runc spec` gives a container.
    public var capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    /// Further folders to make, open to the container's user.
    public var folders: [String] = []

    public init(programs: [String], arguments: [String]) {
        self.programs = programs
        self.arguments = arguments
    }

    /// The configuration alone; its root is "rootfs" beside config.json.
    public func config() throws -> ContainerConfig {
        var soft: UInt64 = 0
        var hard: UInt64 = 0
        var limit = rlimit()
        try checkC(getrlimit(__rlimit_resource_t(UInt32(7)), &limit), "asking for the limit of open files")
        (soft, hard) = (min(openFiles, UInt64(limit.rlim_max)), min(openFiles, UInt64(limit.rlim_max)))
        var mounts: [JSONValue] = [
            mount("/proc", "proc", "proc", []),
            mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts", "devpts", "devpts",
                ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
        ]
        for (path, size) in temporaryFileSystems.sorted(by: { $0.key < $1.key }) {
            mounts.append(mount(path, "tmpfs", "tmpfs", ["nosuid", "nodev", "mode=1777", "size=\(size)"]))
        }
        var network: JSONValue = ["type": "network"]
        if let networkNamespace { network["path"] = .string(networkNamespace) }
        var config: JSONValue = ["ociVersion": "1.0.2", "hostname": .string(hostName)]
        config["root"] = ["path": "rootfs", "readonly": .bool(rootIsReadOnly)]
        config["process"] = [
            "terminal": false,
            "user": ["uid": .integer(Int64(uid)), "gid": .integer(Int64(gid))],
            "args": .strings(arguments),
            "env": .strings(environment),
            "cwd": .string(workingDirectory),
            "capabilities": [
                "bounding": .strings(capabilities), "effective": .strings(capabilities),
                "permitted": .strings(capabilities),
            ],
            "rlimits": [["type": "RLIMIT_NOFILE", "soft": .integer(Int64(soft)), "hard": .integer(Int64(hard))]],
            "noNewPrivileges": true,
        ]
        config["mounts"] = .array(mounts)
        config["linux"] = [
            "namespaces": [["type": "pid"], network, ["type": "ipc"], ["type": "uts"], ["type": "mount"]],
            "resources": ["devices": [["allow": false, "access": "rwm"]]],
            "maskedPaths": .strings([
                "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
            ]),
            "readonlyPaths": .strings(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ]
        return try ContainerConfig(json: config.json())
    }

    /// Builds `folder`/rootfs and `folder`/config.json; the folder is made if need be, its rootfs must not exist.
    @discardableResult
    public func build(in folder: String) throws -> ContainerConfig {
        let config = try config()
        try Folder.create(folder)
        let root = folder + "/rootfs"
        try checkC(mkdir(root, 0o755), "creating folder \(root)")
        for path in ["/bin", "/etc", "/tmp", "/proc", "/sys", "/dev", "/run", "/var"] { try makeFolder(root + path) }
        try checkC(chmod(root + "/tmp", 0o1777), "setting the mode of \(root)/tmp")
        for path in folders + temporaryFileSystems.keys {
            try makeFolder(root + path)
            try checkC(chown(root + path, uid, gid), "setting the owner of \(root)\(path)")
        }
        for program in programs {
            for path in try [program] + BundleBuilder.libraries(of: program) { try copy(path, to: root + path) }
        }
        for link in links where access(root + "/bin/" + link, F_OK) != 0 {
            try checkC(symlink(programs[0], root + "/bin/" + link), "linking /bin/\(link)")
        }
        try write(
            "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
                + (uid == 0 || uid == 65534 ? "" : "app:x:\(uid):\(gid):app:/:/bin/sh\n"), to: root + "/etc/passwd")
        try write(
            "root:x:0:\nnogroup:x:65534:\n" + (gid == 0 || gid == 65534 ? "" : "app:x:\(gid):\n"),
            to: root + "/etc/group")
        try write("passwd: files\ngroup: files\nhosts: files\n", to: root + "/etc/nsswitch.conf")
        try write("127.0.0.1 localhost\n", to: root + "/etc/hosts")
        try write(String(decoding: config.tree.json(pretty: true), as: UTF8.self), to: folder + "/config.json")
        return config
    }

    /// The shared libraries of a program, with its dynamic linker; none for a static one.
    static func libraries(of program: String) throws -> [String] {
        let lines: String
        do throws(SubprocessError) {
            lines = try Subprocess.run(["ldd", program]).text
        } catch {
            if error.words.contains("not a dynamic executable") { return [] }
            throw error
        }
        return try lines.split(separator: "\n").compactMap { line in
            // "libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x...)", "/lib64/ld-linux-x86-64.so.2 (0x...)"
            if line.contains("not found") { throw ContainerError("\(program) needs a library: \(line)") }
            return line.split(separator: " ").last { $0.hasPrefix("/") || $0.hasPrefix("\t/") }
                .map { String($0.drop { $0 == "\t" }) }
        }
    }

    private func mount(_ destination: String, _ type: String, _ source: String, _ options: [String]) -> JSONValue {
        var mount: JSONValue = [
            "destination": .string(destination), "type": .string(type), "source": .string(source),
        ]
        if !options.isEmpty { mount["options"] = .strings(options) }
        return mount
    }

    private func makeFolder(_ path: String) throws(KernelError) {
        var partial = ""
        for part in path.split(separator: "/") {
            partial += "/\(part)"
            if mkdir(partial, 0o755) == 0 {
                try checkC(chmod(partial, 0o755), "setting the mode of \(partial)")
            } else if errno != EEXIST {
                try checkC(Int32(-1), "creating folder \(partial)")
            }
        }
    }

    private func copy(_ source: String, to target: String) throws {
        if access(target, F_OK) == 0 { return }
        try makeFolder(String(target[..<target.lastIndex(of: "/")!]))
        let from = try FileDescriptor(opening: source, O_RDONLY)
        let to = try FileDescriptor(opening: target, O_WRONLY | O_CREAT | O_EXCL)
        try FileContent.copy(from, to: to, name: source)
        try checkC(fchmod(to.number, 0o755), "setting the mode of \(target)")
    }

    private func write(_ text: String, to path: String) throws(KernelError) {
        let file = try FileDescriptor(opening: path, O_WRONLY | O_CREAT | O_TRUNC)
        try checkC(fchmod(file.number, 0o644), "setting the mode of \(path)")
        try SmallFile.write(text, to: path)
    }
}

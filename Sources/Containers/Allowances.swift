// What a host lets containers have that come from other hosts, besides a world of their own.
import Glibc

/// What a container that comes from another host may have of this host, as its operator allows it. By default: nothing.
///
/// An offer comes from whoever reaches the agent's port, and the runtime does as root what a configuration says. So
/// what gives a container more than its own namespaces, files and cgroup is named here, or the offer is refused
/// (`ContainerConfig.excess`).
public struct Allowances: Sendable, Equatable {
    /// Programs that the runtime may call as hooks, with whatever arguments.
    public var hooks: [String] = []
    /// Files and folders of this host that a bind mount may show, readable and writable.
    public var bindSources: [String] = []
    /// Device nodes of this host that a container may use: "/dev/fuse".
    public var devices: [String] = []
    /// Kinds of namespace that a container may share with the host ("network"), and files of namespaces that it may
    /// join.
    public var namespaces: [String] = []
    /// Capabilities beyond `usualCapabilities`.
    public var capabilities: [String] = []
    /// Files of the kernel in /proc and /sys may stay open to it that runtimes mask or make read-only.
    public var kernelFiles = false

    public init() {}

    /// What a container may have that cannot leave its namespaces by it: the set that container engines give by
    /// default.
    public static let usualCapabilities: Set<String> = [
        "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ]

    /// The same file by whatever links, now.
    func allows(bind source: String) -> Bool {
        bindSources.contains { $0 == source || Self.resolved($0) == Self.resolved(source) && access(source, F_OK) == 0 }
    }

    private static func resolved(_ path: String) -> String? {
        guard let found = realpath(path, nil) else { return nil }
        defer { free(found) }
        return String(cString: found)
    }

    /// Whether a container may have a device: every container has it, or `devices` lists it.
    func allows(_ device: DeviceNumber) -> Bool {
        device.isUsual || devices.contains { DeviceNumber(of: $0) == device }
    }
}

/// A device by its type and numbers: its name is whatever a configuration calls it.
struct DeviceNumber: Equatable {
    /// "c" or "b".
    let type: String
    let major: UInt64
    let minor: UInt64

    init(type: String, major: UInt64, minor: UInt64) { (self.type, self.major, self.minor) = (type, major, minor) }

    /// That of a device node of this host; nil: there is none at this path.
    init?(of path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        switch status.st_mode & S_IFMT {
        case S_IFCHR: type = "c"
        case S_IFBLK: type = "b"
        default: return nil
        }
        let number = UInt64(status.st_rdev)
        major = number >> 8 & 0xfff | number >> 32 & ~0xfff
        minor = number & 0xff | number >> 12 & ~0xff
    }

    /// null, zero, full, random, urandom; tty, console, ptmx; pseudo terminals.
    var isUsual: Bool {
        switch (type, major) {
        case ("c", 1): [3, 5, 7, 8, 9].contains(minor)
        case ("c", 5): minor <= 2
        case ("c", 136): true
        default: false
        }
    }
}

extension ContainerConfig {
    /// The capabilities that the configuration gives in any set, as the kernel writes them: bit N is number N.
    public var capabilityMask: UInt64 {
        guard case .object(let sets)? = tree["process"]?["capabilities"] else { return 0 }
        let names = Set(sets.values.flatMap(\.strings))
        return Self.capabilities.enumerated().reduce(0) { mask, capability in
            names.contains("CAP_" + capability.element) ? mask | 1 << UInt64(capability.offset) : mask
        }
    }

    /// include/uapi/linux/capability.h: names by number.
    private static let capabilities = [
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
        "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
        "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
        "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
        "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
        "CHECKPOINT_RESTORE",
    ]
}

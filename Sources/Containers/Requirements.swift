// What a destination must have to take a container, as its configuration tells.
import Glibc
import LinuxKernel

/// What a container's configuration asks of the host it runs on. Travels in the offer.
public struct ContainerRequirements: Codable, Sendable, Equatable {
    public var runtime: String
    public var runtimeVersion: String
    /// Kinds of namespace of the container's own.
    public var namespaces: [String]
    /// Host paths that bind mounts show.
    public var bindSources: [String]
    /// Device nodes that the runtime makes: "/dev/fuse c 10:229".
    public var devices: [String]
    /// Programs that the runtime calls as hooks, on the host.
    public var hooks: [String]

    /// Where the namespace kinds stand in /proc/PID/ns.
    private static let namespaceFiles = [
        "pid": "pid", "network": "net", "mount": "mnt", "ipc": "ipc", "uts": "uts", "user": "user",
        "cgroup": "cgroup", "time": "time",
    ]

    /// Major and minor of "1.1.5+ds1"; patches add nothing to a configuration.
    private static func numbers(_ version: String) -> [Int] {
        version.split(separator: ".").prefix(2).map { Int($0.prefix { $0.isNumber }) ?? 0 }
    }

    /// What keeps this host from taking the container, each in words of its own; empty: nothing.
    ///
    /// Newer versions of a runtime read what older ones read. An older one leaves out in silence what it does not know
    /// of a configuration, so it is refused, as another kind is.
    public func missing(runtime: String, runtimeVersion: String) -> [String] {
        var problems: [String] = []
        if runtime != self.runtime {
            problems.append(
                "the container was made by \(self.runtime) and this host has \(runtime): install \(self.runtime)")
        } else if Self.numbers(runtimeVersion).lexicographicallyPrecedes(Self.numbers(self.runtimeVersion)) {
            problems.append(
                "the container was made by \(self.runtime) \(self.runtimeVersion) and this host has \(runtimeVersion), which may not know "
                    + "all of its configuration: install \(self.runtimeVersion) or newer")
        }
        for kind in namespaces {
            guard let file = Self.namespaceFiles[kind] else {
                problems.append("namespace kind \(kind) is not known here")
                continue
            }
            if access("/proc/self/ns/\(file)", F_OK) != 0 {
                problems.append("this host's kernel has no \(kind) namespaces")
            }
        }
        for path in bindSources where access(path, F_OK) != 0 {
            problems.append("bind mount source \(path) does not exist on this host: make it there")
        }
        for path in hooks where access(path, X_OK) != 0 {
            problems.append("hook \(path) does not exist on this host or cannot be executed")
        }
        return problems
    }
}

extension ContainerConfig {
    /// What a host must have; `bundle` is the folder that relative paths start from.
    public func requirements(
        runtime: String, runtimeVersion: String, bundle: String
    ) -> ContainerRequirements {
        let devices = (tree["linux"]?["devices"]?.elements ?? []).map { device in
            "\(device["path"]?.string ?? "?") \(device["type"]?.string ?? "?") "
                + "\(device["major"]?.unsigned ?? 0):\(device["minor"]?.unsigned ?? 0)"
        }
        var hooks: [String] = []
        if case .object(let kinds) = tree["hooks"] ?? [:] {
            // Hooks of these two kinds are programs in the container, not on the host.
            for (kind, list) in kinds where kind != "startContainer" {
                hooks += list.elements.compactMap { $0["path"]?.string }
            }
        }
        return ContainerRequirements(
            runtime: runtime, runtimeVersion: runtimeVersion, namespaces: namespaces,
            bindSources: mounts.filter(\.isBind).map { absolute($0.source, bundle) }, devices: devices,
            hooks: Set(hooks).sorted())
    }

    /// Seccomp filters that the runtime installs.
    public var seccompFilters: Int { tree["linux"]?["seccomp"] == nil ? 0 : 1 }

    /// What of this configuration Apus does not carry, found before anything runs; empty: nothing.
    public func obstacles() -> [String] {
        var found: [String] = []
        if tree["process"]?["terminal"]?.bool == true { found.append("process.terminal: a console is not carried yet") }
        if namespaces.contains("user") { found.append("linux.namespaces: a user namespace is not carried yet") }
        let carried: Set = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"]
        for mount in mounts where !mount.isBind && !carried.contains(mount.type) {
            found.append("mount \(mount.destination): type \(mount.type) is not carried yet")
        }
        return found
    }
}

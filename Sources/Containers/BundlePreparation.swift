// From the container's own configuration to what this host's runtime gets.

extension ContainerConfig {
    /// Where the stub stands in the container on a destination.
    public static let stubPath = "/.stub"

    /// The capabilities that the stub needs to become the process; the engine drops those that the process lacks.
    /// Why each: see docs/architecture.md, restore.
    public static let stubCapabilities = [
        "CAP_CHECKPOINT_RESTORE", "CAP_DAC_OVERRIDE", "CAP_IPC_LOCK", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE",
    ]

    /// What the runtime gets to run the container from its beginning.
    public func preparedForRun(_ placement: Placement) throws(ContainerError) -> ContainerConfig {
        if tree["process"]?["terminal"]?.bool == true {
            throw ContainerError(
                "process.terminal is true: a container with a console cannot be migrated yet; set it to false, its "
                    + "output goes to a log (`apus logs`)")
        }
        var config = self
        config.tree["root"]!["path"] = .string(placement.root)
        if config.tree["linux"] == nil { config.tree["linux"] = [:] }
        config.tree["linux"]!["cgroupsPath"] = .string(placement.cgroup)
        if let path = placement.networkNamespace { config.setNetworkNamespace(path) }
        config.tree["mounts"] = .array(
            (tree["mounts"]?.elements ?? []).map { mount in
                guard
                    mount["type"]?.string == "bind" || mount["options"]?.strings.contains("bind") == true
                        || mount["options"]?.strings.contains("rbind") == true, let source = mount["source"]?.string
                else { return mount }
                var mount = mount
                mount["source"] = .string(absolute(source, placement.bundle))
                return mount
            })
        return config
    }

    /// What a destination's runtime gets: the same container with the stub as its first process, root in the container
    /// with every capability that the restore needs. Seccomp, AppArmor, the OOM score and hooks stay as they are.
    /// Resource limits are as wide as this host and the process's own allow: what the engine needs to make the process
    /// shall not meet them. The process's own are set last.
    ///
    /// - Parameters:
    ///   - stub: the stub's file on this host, bind-mounted read-only at `stubPath`.
    ///   - limits: the process's hard limits, by RLIMIT_* number.
    public func preparedForDestination(_ placement: Placement, stub: String, limits: [UInt64] = [])
        throws(ContainerError) -> ContainerConfig
    {
        var config = try preparedForRun(placement)
        if mounts.contains(where: { $0.destination == ContainerConfig.stubPath }) {
            throw ContainerError("mounts: \(ContainerConfig.stubPath) is taken; Apus needs it for its stub")
        }
        var process = tree["process"] ?? [:]
        process["args"] = [.string(ContainerConfig.stubPath)]
        process["user"] = ["uid": 0, "gid": 0]
        process["cwd"] = "/"
        process["noNewPrivileges"] = false
        var capabilities = process["capabilities"] ?? [:]
        var all = Set(ContainerConfig.stubCapabilities)
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            all.formUnion(capabilities[set]?.strings ?? [])
        }
        for set in ["bounding", "effective", "permitted"] { capabilities[set] = .strings(all.sorted()) }
        process["capabilities"] = capabilities
        process["rlimits"] = .array(ResourceLimits.forStub(process["rlimits"]?.elements ?? [], limits))
        config.tree["process"] = process
        config.tree["mounts"] = .array(
            config.tree["mounts"]!.elements + [
                [
                    "destination": .string(ContainerConfig.stubPath), "type": "bind", "source": .string(stub),
                    "options": ["bind", "ro", "nosuid", "nodev"],
                ]
            ])
        return config
    }

    private mutating func setNetworkNamespace(_ path: String) {
        var list = tree["linux"]!["namespaces"]?.elements ?? []
        if let index = list.firstIndex(where: { $0["type"]?.string == "network" }) {
            list[index]["path"] = .string(path)
        } else {
            list.append(["type": "network", "path": .string(path)])
        }
        tree["linux"]!["namespaces"] = .array(list)
    }
}

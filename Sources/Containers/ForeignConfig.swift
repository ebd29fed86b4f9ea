// A configuration that another host sent, as hostile input: what in it would give the container more than a world of
// its own.
//
// The runtime reads the configuration as root, so the meaning of every key has to be known here. A key that this file
// does not list may be a newer runtime's, or a known key in other letters, which the runtime (Go) takes for the same.

extension ContainerConfig {
    /// Everything in this configuration that `allowed` does not grant, each with the option of `apus agent` that would.
    ///
    /// - Parameters:
    ///   - bundle: the folder that relative paths start from.
    ///   - networkIsOurs: this host makes the container's network namespace, whatever the configuration says of one.
    public func excess(over allowed: Allowances, bundle: String, networkIsOurs: Bool) -> [String] {
        var check = ForeignConfigCheck(tree, allowed, bundle, networkIsOurs)
        return check.run()
    }
}

/// One look through a configuration.
private struct ForeignConfigCheck {
    private let tree: JSONValue
    private let allowed: Allowances
    private let bundle: String
    private let networkIsOurs: Bool
    private var found: [String] = []

    init(_ tree: JSONValue, _ allowed: Allowances, _ bundle: String, _ networkIsOurs: Bool) {
        (self.tree, self.allowed, self.bundle, self.networkIsOurs) = (tree, allowed, bundle, networkIsOurs)
    }

    mutating func run() -> [String] {
        checkKeys()
        checkHooks()
        checkMounts()
        checkKernelFiles()
        checkNamespaces()
        checkDevices()
        checkCapabilities()
        checkRest()
        return found
    }

    private var linux: JSONValue { tree["linux"] ?? [:] }
    private var mounts: [JSONValue] { tree["mounts"]?.elements ?? [] }

    // MARK: - Keys

    /// The members that objects may have, by where they are; "[]" stands for each element of an array. Objects that are
    /// not listed (annotations, limits of the container's own cgroup) are free.
    private static let keys: [(path: [String], names: Set<String>)] = [
        ([], ["ociVersion", "process", "root", "hostname", "domainname", "mounts", "hooks", "annotations", "linux"]),
        (["root"], ["path", "readonly"]),
        (
            ["process"],
            [
                "terminal", "consoleSize", "user", "args", "env", "cwd", "capabilities", "rlimits", "noNewPrivileges",
                "apparmorProfile", "oomScoreAdj", "selinuxLabel",
            ]
        ),
        (["process", "user"], ["uid", "gid", "umask", "additionalGids", "username"]),
        (["process", "capabilities"], ["bounding", "effective", "permitted", "inheritable", "ambient"]),
        (["process", "rlimits", "[]"], ["type", "soft", "hard"]),
        (["mounts", "[]"], ["destination", "type", "source", "options"]),
        (
            ["hooks"],
            ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
        ),
        (
            ["linux"],
            [
                "namespaces", "devices", "cgroupsPath", "resources", "sysctl", "seccomp", "rootfsPropagation",
                "maskedPaths", "readonlyPaths", "mountLabel", "personality", "timeOffsets", "uidMappings",
                "gidMappings",
            ]
        ),
        (["linux", "namespaces", "[]"], ["type", "path"]),
        (["linux", "devices", "[]"], ["path", "type", "major", "minor", "fileMode", "uid", "gid"]),
        (
            ["linux", "resources"],
            ["devices", "memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "unified"]
        ),
        (["linux", "resources", "devices", "[]"], ["allow", "type", "major", "minor", "access"]),
        (["linux", "seccomp"], ["defaultAction", "defaultErrnoRet", "architectures", "flags", "syscalls"]),
    ]

    private mutating func checkKeys() {
        for (path, names) in Self.keys { checkKeys(of: tree, at: path[...], "", names) }
        guard case .object(let kinds)? = tree["hooks"] else { return }
        for kind in kinds.keys {
            checkKeys(of: tree, at: ["hooks", kind, "[]"], "", ["path", "args", "env", "timeout"])
        }
    }

    private mutating func checkKeys(
        of value: JSONValue, at path: ArraySlice<String>, _ place: String, _ names: Set<String>
    ) {
        guard let step = path.first else {
            guard case .object(let members) = value else { return }
            for key in members.keys.sorted() where !names.contains(key) {
                found.append("\(place)\(key): a setting that is not known here and could do anything: leave it out")
            }
            return
        }
        if step == "[]" {
            for element in value.elements { checkKeys(of: element, at: path.dropFirst(), place, names) }
        } else if let member = value[step] {
            checkKeys(of: member, at: path.dropFirst(), "\(place)\(step).", names)
        }
    }

    // MARK: - Programs, files and devices of the host

    private mutating func checkHooks() {
        guard case .object(let kinds)? = tree["hooks"] else { return }
        for (kind, list) in kinds.sorted(by: { $0.key < $1.key }) {
            for hook in list.elements {
                let path = hook["path"]?.string ?? "without a path"
                if allowed.hooks.contains(path) { continue }
                found.append("hook \(path) (\(kind)) would run with root's rights: allow it with --allow-hook \(path)")
            }
        }
    }

    private mutating func checkMounts() {
        for mount in mounts {
            let destination = mount["destination"]?.string ?? ""
            let options = mount["options"]?.strings ?? []
            let parts = destination.split(separator: "/", omittingEmptySubsequences: false)
            if !destination.hasPrefix("/") || destination == "/" || parts.contains("..") || parts.contains(".") {
                found.append("mount \(destination): not an absolute path without . and .. below the root: write it out")
            }
            for option in options where ["remount", "move", "shared", "rshared", "slave", "rslave"].contains(option) {
                found.append("mount \(destination): option \(option) reaches beyond the container: leave it out")
            }
            if mount["type"]?.string == "bind" || options.contains("bind") || options.contains("rbind") {
                let source = absolute(mount["source"]?.string ?? "", bundle)
                if !allowed.allows(bind: source) {
                    found.append(
                        "mount \(destination) would show this host's \(source): allow it with --allow-bind \(source)")
                }
            }
        }
    }

    private mutating func checkDevices() {
        let devices = linux["devices"]?.elements ?? []
        for device in devices where device["type"]?.string != "p" {
            let path = device["path"]?.string ?? "?"
            let type = device["type"]?.string == "u" ? "c" : device["type"]?.string ?? "?"
            let (major, minor) = (device["major"]?.unsigned ?? 0, device["minor"]?.unsigned ?? 0)
            if allowed.allows(DeviceNumber(type: type, major: major, minor: minor)) { continue }
            found.append(
                "device \(path) (\(type) \(major):\(minor)) is this host's: allow it with --allow-device and the path of"
                    + " its node here")
        }
        let rules = linux["resources"]?["devices"]?.elements ?? []
        let deniesAll = rules.contains { rule in
            rule["allow"]?.bool == false && [nil, "", "a"].contains(rule["type"]?.string)
                && Self.isAny(rule["major"]) && Self.isAny(rule["minor"])
                && [nil, "", "rwm"].contains(rule["access"]?.string)
        }
        if !deniesAll {
            found.append(
                "linux.resources.devices has no rule that denies all devices: begin it with {\"allow\": false, \"access\": \"rwm\"}"
            )
        }
        for rule in rules where rule["allow"]?.bool == true && rule["access"]?.string != "m" {
            let type = rule["type"]?.string ?? "a"
            let device = rule["major"]?.unsigned.flatMap { major in
                (major == 136 ? 0 : rule["minor"]?.unsigned).map { DeviceNumber(type: type, major: major, minor: $0) }
            }
            if let device, allowed.allows(device) { continue }
            let numbers = [rule["major"], rule["minor"]].map { $0?.unsigned.map { "\($0)" } ?? "*" }
            found.append(
                "linux.resources.devices lets it use this host's devices \(type) \(numbers.joined(separator: ":")): allow"
                    + " each with --allow-device and the path of its node here")
        }
    }

    private static func isAny(_ number: JSONValue?) -> Bool {
        guard let number else { return true }
        return number.isNull || number == .integer(-1)
    }

    // MARK: - The kernel

    private mutating func checkKernelFiles() {
        if allowed.kernelFiles { return }
        let advice = "allow it with --allow-kernel-files"
        func hidden(_ key: String) -> Set<String> { Set(linux[key]?.strings ?? []) }
        var open: Set<String> = []
        for mount in mounts {
            let destination = mount["destination"]?.string ?? ""
            let isReadOnly = mount["options"]?.strings.last { ["ro", "rw"].contains($0) } == "ro"
            switch mount["type"]?.string {
            case "proc" where destination == "/proc":
                open.formUnion(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"])
                open.subtract(hidden("readonlyPaths"))
                open.formUnion(
                    Set(["/proc/kcore", "/proc/keys", "/proc/scsi", "/proc/timer_list"]).subtracting(
                        hidden("maskedPaths")))
            case "sysfs" where destination == "/sys" && isReadOnly:
                if !hidden("maskedPaths").contains("/sys/firmware") { open.insert("/sys/firmware") }
            case "cgroup" where isReadOnly, "cgroup2" where isReadOnly: break
            case "proc", "sysfs", "cgroup", "cgroup2":
                found.append(
                    "mount \(destination): \(mount["type"]?.string ?? "") that is writable or not at its usual place shows"
                        + " files of this host's kernel: \(advice)")
            default: break
            }
        }
        open.subtract(hidden("maskedPaths"))
        for path in open.sorted() {
            found.append("\(path) of this host's kernel is neither in maskedPaths nor in readonlyPaths: \(advice)")
        }
    }

    private mutating func checkNamespaces() {
        var own: Set<String> = networkIsOurs ? ["network"] : []
        for namespace in linux["namespaces"]?.elements ?? [] {
            guard let kind = namespace["type"]?.string, !(kind == "network" && networkIsOurs) else { continue }
            let path = namespace["path"]?.string ?? ""
            if path.isEmpty {
                own.insert(kind)
            } else if !allowed.namespaces.contains(path) {
                found.append("it would join the \(kind) namespace \(path): allow it with --allow-namespace \(path)")
            } else {
                own.insert(kind)
            }
        }
        for kind in ["ipc", "mount", "network", "pid", "uts"] where !own.contains(kind) {
            if allowed.namespaces.contains(kind) { continue }
            found.append("it would share this host's \(kind) namespace: allow it with --allow-namespace \(kind)")
        }
        guard case .object(let settings)? = linux["sysctl"] else { return }
        let plain: (UInt8) -> Bool = {
            $0 == 46 || $0 == 95 || $0 == 45 || $0 >= 48 && $0 <= 57 || $0 >= 97 && $0 <= 122
        }
        for name in settings.keys.sorted() {
            let isOwn =
                name.hasPrefix("net.") && own.contains("network")
                || (name.hasPrefix("fs.mqueue.") || Self.interprocess.contains(name)) && own.contains("ipc")
                || name == "kernel.domainname" && own.contains("uts")
            if isOwn && name.utf8.allSatisfy(plain) { continue }
            found.append("linux.sysctl.\(name) is not a setting of the container's own namespaces: leave it out")
        }
    }

    private static let interprocess: Set<String> = [
        "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
        "kernel.shmmni", "kernel.shm_rmid_forced",
    ]

    private mutating func checkCapabilities() {
        guard case .object(let sets)? = tree["process"]?["capabilities"] else { return }
        let granted = Allowances.usualCapabilities.union(allowed.capabilities)
        for name in Set(sets.values.flatMap(\.strings)).subtracting(granted).sorted() {
            found.append("capability \(name) reaches beyond the container: allow it with --allow-capability \(name)")
        }
    }

    private mutating func checkRest() {
        let propagation = linux["rootfsPropagation"]?.string ?? ""
        if !["", "private", "rprivate"].contains(propagation) {
            found.append("linux.rootfsPropagation \(propagation) shares mounts with this host: leave it out")
        }
        if case .object(let files)? = linux["resources"]?["unified"] {
            for name in files.keys.sorted() where name.contains("/") {
                found.append("linux.resources.unified.\(name): not a file of the container's cgroup: leave it out")
            }
        }
    }
}

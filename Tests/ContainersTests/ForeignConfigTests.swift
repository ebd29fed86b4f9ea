// What a configuration from another host may not ask of this one, and by which option it may. No root needed.
import Glibc
import LinuxKernel
import Testing

@testable import Containers

@Suite struct ForeignConfigTests {
    private func plain() throws -> ContainerConfig {
        try BundleBuilder(programs: ["/bin/true"], arguments: ["/bin/true"]).config()
    }

    private func excess(
        allowing allowed: Allowances = Allowances(), networkIsOurs: Bool = false, _ change: (inout JSONValue) -> Void
    ) throws -> [String] {
        var config = try plain()
        change(&config.tree)
        return try ContainerConfig(json: config.json()).excess(
            over: allowed, bundle: "/no/bundle", networkIsOurs: networkIsOurs)
    }

    @Test func anOrdinaryContainerNeedsNoOption() throws {
        #expect(try excess { _ in } == [])
        // As `runc spec` and container engines write it.
        #expect(
            try excess {
                $0["linux"]!["resources"]!["devices"] = [
                    ["allow": false, "access": "rwm"],
                    ["allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"],
                    ["allow": true, "type": "c", "access": "m"],
                ]
                $0["process"]!["capabilities"]!["bounding"] = .strings(Allowances.usualCapabilities)
                $0["annotations"] = ["io.anything": "x"]
                $0["linux"]!["sysctl"] = ["net.ipv4.ip_forward": "1", "kernel.shmmax": "1"]
                $0["linux"]!["resources"]!["memory"] = ["limit": 1_000_000]
                $0["linux"]!["devices"] = [["path": "/dev/zero", "type": "c", "major": 1, "minor": 5]]
            } == [])
    }

    @Test(arguments: [
        ("prestart", "/bin/sh"), ("createRuntime", "/bin/sh"), ("createContainer", "/x"), ("poststart", "/x"),
        ("poststop", "/x"), ("startContainer", "/x"),
    ]) func aHookNeedsItsOption(kind: String, path: String) throws {
        let hooks: (inout JSONValue) -> Void = { $0["hooks"] = .object([kind: [["path": .string(path)]]]) }
        #expect(
            try excess(hooks) == [
                "hook \(path) (\(kind)) would run with root's rights: allow it with --allow-hook \(path)"
            ])
        var allowed = Allowances()
        allowed.hooks = [path]
        #expect(try excess(allowing: allowed, hooks) == [])
        allowed.hooks = [path + "/other"]
        #expect(try excess(allowing: allowed, hooks).count == 1)
    }

    @Test func keysInOtherLettersAreUnknown() throws {
        // Go takes "Hooks" and "ſource" for the names it knows.
        for (change, words): ((inout JSONValue) -> Void, String) in [
            ({ $0["Hooks"] = [:] }, "Hooks"), ({ $0["process"]!["Capabilities"] = [:] }, "process.Capabilities"),
            ({ $0["linux"]!["Devices"] = [] }, "linux.Devices"), ({ $0["linux"]!["intelRdt"] = [:] }, "linux.intelRdt"),
            ({ $0["linux"]!["netDevices"] = [:] }, "linux.netDevices"), ({ $0["vm"] = [:] }, "vm"),
            ({ $0["linux"]!["seccomp"] = ["listenerPath": "/run/x"] }, "linux.seccomp.listenerPath"),
            (
                { $0["mounts"] = [["destination": "/a", "type": "tmpfs", "\u{17f}ource": "/"]] },
                "mounts.\u{17f}ource"
            ),
            ({ $0["linux"]!["namespaces"] = .array($0["linux"]!["namespaces"]!.elements + [["Type": "pid"]]) }, "Type"),
        ] {
            let found = try excess(change)
            #expect(found.contains { $0.contains(words) && $0.contains("not known here") }, "\(words): \(found)")
        }
        var allowed = Allowances()
        allowed.hooks = ["/allowed"]
        #expect(
            try excess(allowing: allowed) { $0["hooks"] = ["prestart": [["path": "/allowed", "Path": "/evil"]]] }.count
                == 1)
    }

    @Test func aBindNeedsItsOptionHoweverItsSourceIsWritten() throws {
        let folder = "/tmp/apus-binds-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        try Folder.create(folder + "/data")
        defer { try? Folder.remove(folder) }
        #expect(symlink("/", folder + "/data/root") == 0)
        var allowed = Allowances()
        allowed.bindSources = [folder + "/data"]
        func bind(_ source: String, _ mount: JSONValue = ["type": "bind"]) throws -> [String] {
            try excess(allowing: allowed) {
                var mount = mount
                (mount["destination"], mount["source"]) = ("/data", .string(source))
                $0["mounts"] = .array($0["mounts"]!.elements + [mount])
            }
        }
        #expect(try bind(folder + "/data") == [] && bind(folder + "/data/../data") == [])
        for source in ["/", folder, folder + "/data/root", folder + "/data/..", "relative", "", "/no/such"] {
            let found = try bind(source)
            #expect(found.count == 1 && found[0].contains("--allow-bind"), "\(source): \(found)")
        }
        #expect(try bind("/", ["type": "none", "options": ["rbind"]]).count == 1)
        #expect(try bind("/", ["type": "tmpfs", "options": ["bind"]]).count == 1)
    }

    @Test func devicesGoByTheirNumbers() throws {
        let disk: JSONValue = ["path": "/dev/null", "type": "b", "major": 8, "minor": 0]
        #expect(try excess { $0["linux"]!["devices"] = [disk] }.first?.contains("b 8:0") == true)
        for rules: JSONValue in [
            [], [["allow": false, "type": "c", "access": "rwm"]], [["allow": false, "access": "m"]],
            [["allow": false, "access": "rwm"], ["allow": true, "access": "rwm"]],
            [["allow": false, "access": "rwm"], ["allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"]],
            [["allow": false, "access": "rwm"], ["allow": true, "type": "c", "major": 1, "access": "r"]],
        ] {
            #expect(try excess { $0["linux"]!["resources"]!["devices"] = rules }.count == 1, "\(rules)")
        }
        #expect(try excess { $0["linux"]!["resources"] = nil }.count == 1)
        var allowed = Allowances()
        allowed.devices = ["/dev/tty1"]
        if let number = DeviceNumber(of: "/dev/tty1") {
            #expect(number == DeviceNumber(type: "c", major: 4, minor: 1))
            let fuse: JSONValue = ["path": "/dev/x", "type": "c", "major": 4, "minor": 1]
            #expect(try excess(allowing: allowed) { $0["linux"]!["devices"] = [fuse] } == [])
        }
        #expect(DeviceNumber(of: "/dev/null")?.isUsual == true && DeviceNumber(of: "/") == nil)
    }

    @Test func namespacesOfTheHostNeedTheirOption() throws {
        for kind in ["ipc", "mount", "network", "pid", "uts"] {
            let without: (inout JSONValue) -> Void = { tree in
                tree["linux"]!["namespaces"] = .array(
                    tree["linux"]!["namespaces"]!.elements.filter { $0["type"]?.string != kind })
            }
            #expect(try excess(without).contains { $0.contains("--allow-namespace \(kind)") })
            var allowed = Allowances()
            allowed.namespaces = [kind]
            #expect(try excess(allowing: allowed, without) == [])
            let joined: (inout JSONValue) -> Void = { tree in
                tree["linux"]!["namespaces"] = .array(
                    tree["linux"]!["namespaces"]!.elements.map {
                        $0["type"]?.string == kind ? ["type": .string(kind), "path": "/proc/1/ns/x"] : $0
                    })
            }
            #expect(try excess(joined).contains { $0.contains("--allow-namespace /proc/1/ns/x") })
            if kind == "network" { #expect(try excess(networkIsOurs: true, joined) == []) }
        }
    }

    @Test func whatElseReachesBeyondIsNamed() throws {
        for (change, words): ((inout JSONValue) -> Void, String) in [
            ({ $0["process"]!["capabilities"]!["ambient"] = ["CAP_SYS_ADMIN"] }, "--allow-capability CAP_SYS_ADMIN"),
            ({ $0["linux"]!["readonlyPaths"] = nil }, "/proc/sys of this host's kernel"),
            ({ $0["linux"]!["maskedPaths"] = [] }, "/proc/kcore of this host's kernel"),
            ({ $0["mounts"] = [["destination": "/p", "type": "proc"]] }, "--allow-kernel-files"),
            ({ $0["mounts"] = [["destination": "/sys", "type": "sysfs"]] }, "--allow-kernel-files"),
            (
                { $0["mounts"] = [["destination": "/c", "type": "cgroup", "options": ["ro", "rw"]]] },
                "--allow-kernel-files"
            ),
            ({ $0["mounts"] = [["destination": "/a/../../b", "type": "tmpfs"]] }, "mount /a/../../b"),
            ({ $0["mounts"] = [["destination": "/a", "type": "tmpfs", "options": ["rshared"]]] }, "option rshared"),
            ({ $0["linux"]!["rootfsPropagation"] = "shared" }, "rootfsPropagation shared"),
            ({ $0["linux"]!["sysctl"] = ["kernel.core_pattern": "|/x"] }, "kernel.core_pattern"),
            ({ $0["linux"]!["sysctl"] = ["net./../kernel/core_pattern": "|/x"] }, "core_pattern"),
            ({ $0["linux"]!["resources"]!["unified"] = ["../x": "1"] }, "../x"),
        ] {
            let found = try excess(change)
            #expect(found.contains { $0.contains(words) }, "\(words): \(found)")
        }
    }

    @Test func capabilitiesHaveTheirNumbers() throws {
        var config = try plain()
        config.tree["process"]!["capabilities"] = [
            "bounding": ["CAP_CHOWN"], "ambient": ["CAP_CHECKPOINT_RESTORE", "CAP_X"],
        ]
        #expect(config.capabilityMask == 1 | 1 << 40)
        config.tree["process"]!["capabilities"] = nil
        #expect(config.capabilityMask == 0)
    }

    @Test func mountPointsAreRealFolders() throws {
        let folder = "/tmp/apus-points-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        try Folder.create(folder + "/etc")
        defer { try? Folder.remove(folder) }
        let config = try plain()
        #expect(try config.mountPointObstacles(in: folder) == [])
        #expect(symlink("/tmp", folder + "/dev") == 0)
        let found = try config.mountPointObstacles(in: folder)
        // /dev itself, and what is mounted below it.
        #expect(found.count == 4 && found.allSatisfy { $0.contains("/dev in the container's root") }, "\(found)")
        unlink(folder + "/dev")
        #expect(symlink("etc/x", folder + "/.stub") == 0)
        #expect(try config.mountPointObstacles(in: folder).first?.contains("/.stub") == true)
        unlink(folder + "/.stub")
        // A bind of a file is mounted on a file.
        var bind = config
        bind.tree["mounts"] = [["destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts"]]
        close(open(folder + "/etc/hosts", O_CREAT | O_WRONLY, 0o600))
        #expect(try bind.mountPointObstacles(in: folder) == [])
        unlink(folder + "/etc/hosts")
        #expect(symlink("/etc/shadow", folder + "/etc/hosts") == 0)
        #expect(try bind.mountPointObstacles(in: folder).count == 1)
    }
}

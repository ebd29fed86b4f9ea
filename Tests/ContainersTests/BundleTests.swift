// What becomes of a config.json. No root needed.
import Testing

@testable import Containers

@Suite struct BundleTests {
    let text = """
        {"ociVersion":"1.0.2","x-unknown":{"deep":[1,2.5,null,18446744073709551615,"ü/\\"\\u0001"]},
         "process":{"terminal":false,"user":{"uid":1000,"gid":1000,"additionalGids":[5]},"args":["a","b"],"cwd":"/w",
          "capabilities":{"bounding":["CAP_KILL"],"ambient":["CAP_CHOWN"]},"noNewPrivileges":true,"oomScoreAdj":7,
          "rlimits":[{"type":"RLIMIT_NOFILE","soft":64,"hard":512},{"type":"RLIMIT_CORE","soft":0,"hard":0}],
          "apparmorProfile":"p"},
         "root":{"path":"fs","readonly":true},"hooks":{"poststop":[{"path":"/no/hook"}],"startContainer":[{"path":"/in"}]},
         "mounts":[{"destination":"/proc","type":"proc","source":"proc"},
          {"destination":"/data","type":"bind","source":"data","options":["rbind"]},
          {"destination":"/dev","type":"tmpfs"},{"destination":"/dev/shm","type":"tmpfs"},
          {"destination":"/cache","type":"tmpfs"}],
         "linux":{"namespaces":[{"type":"pid"},{"type":"network"}],"seccomp":{"defaultAction":"SCMP_ACT_ALLOW"},
          "devices":[{"path":"/dev/fuse","type":"c","major":10,"minor":229}]}}
        """
    var config: ContainerConfig { get throws { try ContainerConfig(json: Array(text.utf8)) } }
    let place = ContainerConfig.Placement(
        root: "/s/rootfs", networkNamespace: "/run/netns/x", cgroup: "/apus-a/web", bundle: "/b")

    @Test func losesNothing() throws {
        let config = try config
        #expect(try ContainerConfig(json: config.json()) == config)
        #expect(config.tree["x-unknown"]?["deep"] == [1, .number(2.5), .null, .unsigned(.max), "ü/\"\u{1}"])
        #expect(try ContainerConfig(json: config.json()).digest == config.digest)
        var other = config
        other.tree["x-unknown"] = nil
        #expect(other.digest != config.digest)
    }

    @Test func isPreparedForRunning() throws {
        let config = try config
        let run = try config.preparedForRun(place)
        #expect(run.tree["root"]?["path"]?.string == "/s/rootfs" && run.rootIsReadOnly)
        #expect(run.tree["linux"]?["cgroupsPath"]?.string == "/apus-a/web")
        #expect(
            run.tree["linux"]?["namespaces"] == [["type": "pid"], ["type": "network", "path": "/run/netns/x"]])
        #expect(run.mounts[1].source == "/b/data")
        #expect(run.tree["process"] == config.tree["process"] && run.tree["hooks"] == config.tree["hooks"])
        var place = place
        place.networkNamespace = nil
        #expect(
            try config.preparedForRun(place).tree["linux"]?["namespaces"] == config.tree["linux"]?["namespaces"])
        #expect(config.root(inBundle: "/b") == "/b/fs")
    }

    @Test func isPreparedForADestination() throws {
        let config = try config
        let stub = try config.preparedForDestination(place, stub: "/run/stub")
        let process = try #require(stub.tree["process"])
        #expect(process["args"] == ["/.stub"])
        #expect(process["user"] == ["uid": 0, "gid": 0])
        #expect(process["cwd"] == "/" && process["noNewPrivileges"] == false)
        #expect(process["oomScoreAdj"] == 7 && process["apparmorProfile"] == "p")
        // No narrower than the process's and than this host's: the engine's own needs shall not meet them.
        let limits = try config.preparedForDestination(place, stub: "/run/stub", limits: [1 << 63]).tree["process"]?[
            "rlimits"]
        for (type, least) in [("RLIMIT_NOFILE", 512), ("RLIMIT_AS", 1), ("RLIMIT_CPU", 1 << 63)] as [(String, UInt64)] {
            let limit = try #require(limits?.elements.first { $0["type"]?.string == type })
            #expect(limit["hard"]?.unsigned ?? 0 >= least && limit["soft"] == limit["hard"], "\(type)")
        }
        let expected = Set(ContainerConfig.stubCapabilities + ["CAP_KILL", "CAP_CHOWN"])
        for set in ["bounding", "effective", "permitted"] {
            #expect(Set(process["capabilities"]?[set]?.strings ?? []) == expected)
        }
        #expect(process["capabilities"]?["ambient"] == ["CAP_CHOWN"])
        #expect(stub.tree["linux"]?["seccomp"] == config.tree["linux"]?["seccomp"])
        #expect(stub.mounts.count == config.mounts.count + 1)
        let mount = try #require(stub.mounts.last)
        #expect(mount.destination == "/.stub" && mount.source == "/run/stub" && mount.type == "bind")
        #expect(mount.options == ["bind", "ro", "nosuid", "nodev"])
    }

    @Test func refusesATerminal() throws {
        var config = try config
        config.tree["process"]!["terminal"] = true
        let error = #expect(throws: ContainerError.self) { try config.preparedForRun(place) }
        #expect(error?.description.contains("terminal") == true)
        #expect(!config.obstacles().isEmpty)
        config.tree["process"]!["terminal"] = false
        #expect(config.obstacles().isEmpty)
    }

    @Test(arguments: ["", "[]", "{", "{\"root\":{\"path\":\"x\"}}", "{\"process\":{\"args\":[\"x\"]}}"])
    func refusesWhatIsNoConfiguration(text: String) {
        #expect(throws: ContainerError.self) { try ContainerConfig(json: Array(text.utf8)) }
    }

    @Test func namesWhatADestinationNeeds() throws {
        let needs = try config.requirements(runtime: "runc", runtimeVersion: "1", bundle: "/no-bundle")
        #expect(needs.namespaces == ["network", "pid"])
        #expect(needs.bindSources == ["/no-bundle/data"])
        #expect(needs.devices == ["/dev/fuse c 10:229"])
        #expect(needs.hooks == ["/no/hook"])
        let missing = needs.missing(runtime: "crun", runtimeVersion: "1")
        #expect(missing.count == 3)
        #expect(missing.contains { $0.contains("/no-bundle/data") })
        #expect(missing.contains { $0.contains("crun") })
        func problems(_ version: String, here: String) throws -> Int {
            try config.requirements(runtime: "runc", runtimeVersion: version, bundle: "/no-bundle").missing(
                runtime: "runc", runtimeVersion: here
            ).count
        }
        for (there, here) in [("1.1.5+ds1", "1.1.0"), ("1.1.5", "1.3.0-rc1"), ("1.9", "2.0")] {
            #expect(try problems(there, here: here) == 2)
        }
        for (there, here) in [("1.2.0", "1.1.9"), ("1.10", "1.9.1")] { #expect(try problems(there, here: here) == 3) }
        #expect(try config.temporaryFileSystems == ["/cache", "/dev/shm"])
    }

    @Test(arguments: ["a", "A-1_b.c", String(repeating: "x", count: 63)])
    func takesNames(name: String) throws { try checkName(name, "container") }

    @Test(arguments: ["", ".", "..", "-a", "a/b", "a b", "ä", "a\n", String(repeating: "x", count: 64)])
    func refusesNames(name: String) { #expect(throws: ContainerError.self) { try checkName(name, "container") } }
}

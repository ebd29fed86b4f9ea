// runc, bundles and cgroups on real containers.
import Glibc
import LinuxKernel
import Testing

@testable import Containers

/// A host of its own in a temporary folder; `remove` takes away all that it made, whatever a test left.
final class TestHost {
    let layout: HostLayout
    let runtime: Runc
    let folder: String
    var names: [String] = []

    init() throws {
        let name = "test-\(getpid())-\(UInt32.random(in: 0...0xffff))"
        folder = try temporaryFolder()
        layout = try HostLayout(hostName: name, stateFolder: folder + "/state")
        try layout.create()
        runtime = Runc(root: layout.runtimeRoot)
    }

    /// A container of busybox, created with the configuration that `change` made of the built one.
    func make(
        _ name: String, _ arguments: [String], builder change: (inout BundleBuilder) -> Void = { _ in },
        stub: String? = nil
    ) throws -> (directory: ContainerDirectory, config: ContainerConfig, pid: Int32) {
        var builder = BundleBuilder(programs: ["/bin/busybox"], arguments: arguments)
        builder.links = ["sh", "sleep", "cat", "echo"]
        change(&builder)
        let directory = try layout.container(name)
        names.append(name)
        try directory.create()
        rmdir(directory.rootfs)
        let config = try builder.build(in: directory.path)
        let placement = ContainerConfig.Placement(
            root: directory.rootfs, networkNamespace: nil, cgroup: layout.cgroup(of: name), bundle: directory.path)
        let prepared =
            try stub.map { try config.preparedForDestination(placement, stub: $0) } ?? config.preparedForRun(placement)
        try directory.write(config: config, prepared: prepared)
        let pid = try runtime.create(name, bundle: directory.bundle, log: directory.log)
        return (directory, config, pid)
    }

    func remove() {
        for name in names { try? runtime.delete(name, force: true) }
        _ = try? Cgroup.removeEmpty(layout.cgroupParent)
        try? Folder.remove(layout.runFolder)
        try? Folder.remove(folder)
    }
}

func temporaryFolder() throws -> String {
    let folder = "/tmp/apus-test-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
    try Folder.create(folder)
    return folder
}

/// Asks again until it is so, for at most ten seconds.
func eventually(_ isSo: () throws -> Bool) rethrows -> Bool {
    for _ in 0..<1000 {
        if try isSo() { return true }
        usleep(10_000)
    }
    return false
}

@Suite(.serialized, .enabled(if: geteuid() == 0 && Subprocess.find("runc") != nil), .timeLimit(.minutes(2)))
struct RuncTests {
    @Test func livesItsLife() throws {
        let host = try TestHost()
        defer { host.remove() }
        let (directory, _, pid) = try host.make("one", ["/bin/sh", "-c", "echo out; echo err >&2; sleep 1000"])
        #expect(try host.runtime.state("one")?.status == .created)
        #expect(try host.runtime.state("one")?.pid == pid)
        try host.runtime.start("one")
        let state = try #require(try host.runtime.state("one"))
        #expect(state.status == .running && state.pid == pid && state.bundle == directory.bundle)
        #expect(try host.runtime.list() == [state])
        #expect(try eventually { try SmallFile.text(directory.log) == "out\nerr" })
        try host.runtime.kill("one", signal: SIGKILL)
        #expect(try eventually { try host.runtime.state("one")?.status == .stopped })
        try host.runtime.delete("one", force: false)
        #expect(try host.runtime.state("one") == nil)
        try host.runtime.delete("one", force: true)
        #expect(try host.runtime.list().isEmpty)
    }

    @Test func aRuntimeThatHangsLeavesNothing() throws {
        let host = try TestHost()
        defer { host.remove() }
        let directory = try host.layout.container("hung"), tag = "1\(UInt32.random(in: 100_000...999_999))"
        try directory.create()
        rmdir(directory.rootfs)
        var config = try BundleBuilder(programs: ["/bin/busybox"], arguments: ["/bin/busybox"]).build(
            in: directory.path)
        config.tree["hooks"] = ["createRuntime": [["path": "/bin/sleep", "args": ["sleep", .string(tag)]]]]
        let cgroup = host.layout.cgroup(of: "hung")
        try directory.write(
            config: config,
            prepared: try config.preparedForRun(
                .init(root: directory.rootfs, networkNamespace: nil, cgroup: cgroup, bundle: directory.path)))
        var runtime = host.runtime
        runtime.timeLimit = .seconds(1)
        let error = #expect(throws: RuntimeError.self) {
            try runtime.create("hung", bundle: directory.bundle, log: directory.log)
        }
        #expect(error?.words.contains("took longer") == true)
        func left() -> [String] {
            ((try? Folder.names("/proc")) ?? []).filter { pid in
                let line = (try? SmallFile.read("/proc/\(pid)/cmdline")) ?? []
                let isHook = line.split(separator: 0).last.map { String(decoding: $0, as: UTF8.self) } == tag
                return isHook || ((try? SmallFile.text("/proc/\(pid)/cgroup")) ?? "").contains(cgroup)
            }
        }
        #expect(eventually { left().isEmpty }, "\(left())")
        #expect(try runtime.list().isEmpty)
    }

    @Test func passesOnTheRuntimesWords() throws {
        let host = try TestHost()
        defer { host.remove() }
        let error = #expect(throws: RuntimeError.self) { try host.make("bad", ["/no/such/program"]) }
        #expect(error?.words.contains("/no/such/program") == true, "\(error!)")
        #expect(error?.words.contains("level=") == false)
        #expect(throws: RuntimeError.self) { try host.runtime.kill("unknown", signal: SIGTERM) }
        #expect(try host.runtime.state("unknown") == nil)
        #expect(try host.runtime.version().contains("."))
        #expect(throws: RuntimeError.self) { try Runc(root: "/tmp", program: "no-such-runc").version() }
    }

    @Test func runsAStubInsteadOfTheProgram() throws {
        let host = try TestHost()
        defer { host.remove() }
        let (_, _, pid) = try host.make(
            "stubbed", ["/bin/sleep", "1000"], builder: { $0.uid = 1000 }, stub: "/bin/busybox")
        try host.runtime.start("stubbed")
        // A busybox called ".stub" knows no such applet and ends; before that it is the container's first process.
        let status = try? SmallFile.text("/proc/\(pid)/status")
        if let status { #expect(status.contains("\nUid:\t0\t0\t0\t0")) }
        let log = try host.layout.container("stubbed").log
        #expect(try eventually { try SmallFile.text(log).contains(".stub: applet not found") })
    }

    @Test func leavesNoCgroupBehind() throws {
        let host = try TestHost()
        let (_, _, pid) = try host.make("web", ["/bin/sleep", "1000"])
        try host.runtime.start("web")
        let place = try CgroupPlace(pid: pid, cgroup: host.layout.cgroup(of: "web"))
        #expect(!place.folders.isEmpty)
        // A cgroup that is in use stays.
        #expect(try !Cgroup.removeEmpty(host.layout.cgroupParent).isEmpty)
        #expect(kill(pid, 0) == 0)
        host.remove()
        #expect(place.folders.allSatisfy { access($0, F_OK) != 0 })
        #expect(try CgroupMount.all().allSatisfy { access($0.path + host.layout.cgroupParent, F_OK) != 0 })
        #expect(access(host.folder, F_OK) != 0)
    }

    @Test func freezesAndThaws() throws {
        let host = try TestHost()
        defer { host.remove() }
        let (_, _, pid) = try host.make("busy", ["/bin/sh", "-c", "while :; do :; done"])
        try host.runtime.start("busy")
        let place = try CgroupPlace(pid: pid, cgroup: host.layout.cgroup(of: "busy"))
        var places = [place]
        if place.unified != nil && place.freezer != nil {
            places = [place, place]
            places[0].freezer = nil
            places[1].unified = nil
        }
        for place in places {
            let cgroup = try Cgroup(place)
            #expect(try cgroup.processes() == [pid])
            #expect(try !cgroup.isFrozen())
            let time = try ContinuousClock().measure { try cgroup.freeze() }
            print("freeze by \(place.unified == nil ? "v1" : "v2"): \(time)")
            #expect(try cgroup.isFrozen())
            let before = try SmallFile.text("/proc/\(pid)/stat")
            usleep(50_000)
            #expect(try SmallFile.text("/proc/\(pid)/stat") == before)
            // Another object, as another process would have it, thaws.
            try Cgroup(place).thaw()
            #expect(try !cgroup.isFrozen())
            usleep(50_000)
            #expect(try SmallFile.text("/proc/\(pid)/stat") != before)
        }
    }

    @Test func refusesACgroupThatHoldsMore() throws {
        #expect(throws: (any Error).self) { try CgroupPlace(pid: getpid(), cgroup: "/apus-none/web") }
    }
}

// What is set of a container while it runs, past its configuration: it moves along, or the move is refused by its name.
import CLinux
import Foundation
import Glibc
import LinuxKernel
import Testing

@testable import Containers
@testable import Migration

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct RunStateTests {
    private func withDirtier(_ body: (TwoHosts, RunningContainer) throws -> Void) throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run("set", "dirtier", ["--memory", "8M", "--rate", "2000", "--threads", "2"])
        try hosts.waitUntilReady(container)
        try body(hosts, container)
    }

    /// Runs a command in one kind of namespace of the container, as an operator would.
    private func enter(_ container: RunningContainer, _ namespace: String, _ command: String) throws {
        try Subprocess.run(["nsenter", namespace, "-t", "\(container.pid)", "sh", "-c", command])
    }

    private func mountTemporary(in container: RunningContainer) throws {
        try ContainerMounts.run(in: container.pid) { () throws(KernelError) in
            try check(clx_mount("none", "/tmp", "tmpfs", 0, "size=64k"), "mounting a tmpfs")
        }
    }

    private func state(_ hosts: TwoHosts, _ container: RunningContainer, on index: Int) throws -> RunState {
        try RunState(pid: container.pid, cgroup: hosts.hosts[index].layout.cgroup(of: container.name))
    }

    private func update(_ hosts: TwoHosts, _ container: RunningContainer, on index: Int, _ options: [String]) throws {
        try Subprocess.run(
            ["runc", "--root", hosts.hosts[index].layout.runtimeRoot, "update"] + options + [container.name])
    }

    /// 1 MiB is left to the program: what the engine needs is not taken from that, at either side.
    @Test func aContainerNearItsMemoryLimitMovesThereAndBack() throws {
        try withDirtier { hosts, container in
            var container = container
            for hop in 0..<3 {
                let place = try CgroupPlace(
                    pid: container.pid, cgroup: hosts.hosts[hop % 2].layout.cgroup(of: container.name))
                let files = place.folders.flatMap { folder in
                    ["memory.usage_in_bytes", "memory.current"].map { "\(folder)/\($0)" }
                }
                let file = try #require(files.first { path in access(path, F_OK) == 0 })
                let text = try SmallFile.text(file)
                let usage = try #require(UInt64(text))
                try update(hosts, container, on: hop % 2, ["--memory", "\((usage + (1 << 20)) & ~4095)"])
                container = try hosts.migrate(container, from: hop % 2, MigrationPlan(technique: .allCases[hop])).1
                #expect(try hosts.verdict(container, on: 1 - hop % 2).contains("\"oracle\":\"ok\""), "move \(hop)")
            }
        }
    }

    /// A module that was loaded since brings sysctls of its own.
    @Test func sysctlsThatNobodyNotedAreFoundToo() throws {
        try withDirtier { _, container in
            let spaces = OwnSpaces(pid: container.pid)
            try ContainerThread.run(in: container.pid) { () throws(KernelError) in
                let all = try Sysctls(of: spaces)
                var noted = all
                noted.values["net/ipv4/tcp_retries2"] = nil
                #expect(all.values.count > 200 && noted != all)
                #expect(try Sysctls(of: spaces, before: noted) == all)
            }
        }
    }

    @Test func namesLimitsAndSysctlsThatWereSetMoveAlongThereAndBack() throws {
        try withDirtier { hosts, container in
            var container = container
            try enter(container, "-u", "hostname set-at-run-time; echo a.domain > /proc/sys/kernel/domainname")
            try enter(container, "-i", "echo 9000 > /proc/sys/kernel/msgmax")
            try enter(container, "-n", "echo 7 > /proc/sys/net/ipv4/tcp_retries2")
            try update(hosts, container, on: 0, ["--pids-limit", "77", "--memory", "300M"])
            for hop in 0..<3 {
                container = try hosts.migrate(container, from: hop % 2, MigrationPlan(technique: .allCases[hop])).1
                let now = try state(hosts, container, on: 1 - hop % 2)
                #expect(String(decoding: now.names.host, as: UTF8.self) == "set-at-run-time")
                #expect(String(decoding: now.names.domain, as: UTF8.self) == "a.domain")
                #expect(now.sysctls.values["kernel/msgmax"] == "9000")
                #expect(now.sysctls.values["net/ipv4/tcp_retries2"] == "7")
                #expect(now.limits.values["pids.max"] == "\(77 + hop)")
                let memory = now.limits.values["memory.limit_in_bytes"] ?? now.limits.values["memory.max"]
                #expect(memory == "\((300 + hop) << 20)")
                #expect(try hosts.verdict(container, on: 1 - hop % 2).contains("\"oracle\":\"ok\""))
                // The next move starts from what this one has set, and from what has been set here.
                try update(
                    hosts, container, on: 1 - hop % 2, ["--pids-limit", "\(78 + hop)", "--memory", "\(301 + hop)M"])
            }
        }
    }

    enum Kind: String, CaseIterable { case mount = "mount /tmp (tmpfs)", address = "address 127.0.0.9/8 of lo", cgroup }

    @Test(arguments: Kind.allCases) func whatCannotBeSetAgainIsRefusedByName(_ kind: Kind) throws {
        try withDirtier { hosts, container in
            let cgroups = try CgroupLimits.folders(container.pid, hosts.hosts[0].layout.cgroup(of: container.name))
            let below = "\(cgroups[0])/made"
            switch kind {
            case .mount: try mountTemporary(in: container)
            case .address: try enter(container, "-n", "ip address add 127.0.0.9/8 dev lo")
            case .cgroup: try Folder.create(below)
            }
            let error = hosts.failure(of: container, MigrationPlan(technique: .preCopy))
            if kind == .cgroup { rmdir(below) }
            #expect(error?.kind == .refused, "\(String(describing: error))")
            #expect(error?.message.contains(kind.rawValue) == true, "\(String(describing: error))")
            #expect(hosts.traces(of: container) == [])
            #expect(hosts.leftovers(of: container.name) == [])
            #expect(try hosts.verdict(container, on: 0).contains("\"oracle\":\"ok\""))
        }
    }

    @Test func aMountThatIsMadeWhileItIsCopiedIsRefusedByName() throws {
        try withDirtier { hosts, container in
            var plan = MigrationPlan(technique: .migrror)
            (plan.handover, plan.postponeLimit) = (.atTrigger, 0.2)
            let error = hosts.failure(of: container, plan) { control in
                try mountTemporary(in: container)
                control.triggerHandover()
            }
            #expect(error?.kind == .refused, "\(String(describing: error))")
            #expect(error?.message.contains("mount /tmp (tmpfs)") == true, "\(String(describing: error))")
            #expect(hosts.traces(of: container) == [])
            let verdict = try hosts.verdict(container, on: 0)
            #expect(verdict.contains("\"oracle\":\"ok\""))
        }
    }

    @Test func whatIsSetWhileItIsCopiedMovesAlong() throws {
        try withDirtier { hosts, container in
            var plan = MigrationPlan(technique: .migrror)
            plan.handover = .atTrigger
            let control = MigrationControl()
            try enter(container, "-i", "echo 9000 > /proc/sys/kernel/msgmax")
            try OwnThread.start("operator") {
                for _ in 0..<5000 where control.progress.passes < 3 { usleep(1000) }
                do {
                    try enter(container, "-u", "hostname set-late")
                    // Back to what its configuration makes of it.
                    try enter(container, "-i", "echo 8192 > /proc/sys/kernel/msgmax")
                    try enter(container, "-i", "echo 20000 > /proc/sys/kernel/msgmnb")
                } catch { print("operator: \(error)") }
                control.triggerHandover()
            }
            let moved = try hosts.migrate(container, plan, control: control).1
            let now = try state(hosts, moved, on: 1)
            #expect(String(decoding: now.names.host, as: UTF8.self) == "set-late")
            #expect(now.sysctls.values["kernel/msgmax"] == "8192" && now.sysctls.values["kernel/msgmnb"] == "20000")
            #expect(try hosts.verdict(moved, on: 1).contains("\"oracle\":\"ok\""))
        }
    }

    /// In the freeze nothing else tells of what changed after the last look.
    @Test func theWatchNoticesEachKindOfChange() throws {
        try withDirtier { hosts, container in
            func expect(_ words: String?, _ body: () throws -> Void) throws {
                let watch = try RunStateWatch(
                    pid: container.pid, cgroup: hosts.hosts[0].layout.cgroup(of: container.name))
                #expect(watch.change() == nil)
                try body()
                let change = watch.change()
                #expect(words == nil ? change == nil : change?.contains(words!) == true, "\(change ?? "nothing")")
            }
            try expect(nil) {}
            try expect("host name") { try enter(container, "-u", "hostname other") }
            try expect("addresses") { try enter(container, "-n", "ip address add 127.0.0.9/8 dev lo") }
            try expect("mounts") { try mountTemporary(in: container) }
            try expect("sysctl net/ipv4/tcp_retries2") {
                try enter(container, "-n", "echo 9 > /proc/sys/net/ipv4/tcp_retries2")
            }
            try expect("sysctl kernel/msgmax") { try enter(container, "-i", "echo 9000 > /proc/sys/kernel/msgmax") }
            try expect(nil) { try enter(container, "-n", "cat /proc/sys/net/ipv4/tcp_retries2") }
            try expect("pids.max") { try update(hosts, container, on: 0, ["--pids-limit", "55"]) }
        }
    }

    /// A program writes to its own procfs, where its configuration leaves that writable: another one than the host's.
    @Test func theWatchNoticesWhatIsSetInTheContainersOwnProcfs() throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run("open", "dirtier", ["--memory", "1M", "--rate", "10"]) { config in
            config.tree["linux"]!["readonlyPaths"] = .array([])
        }
        try hosts.waitUntilReady(container)
        let watch = try RunStateWatch(
            pid: container.pid, cgroup: hosts.hosts[0].layout.cgroup(of: container.name))
        #expect(watch.change() == nil)
        try enter(container, "-n", "echo 9 > /proc/\(container.pid)/root/proc/sys/net/ipv4/tcp_retries2")
        #expect(watch.change()?.contains("sysctl net/ipv4/tcp_retries2") == true)
    }

    /// A source may be anybody's.
    @Test func aDestinationSetsNothingOfItsOwn() throws {
        try withDirtier { hosts, container in
            for (sysctls, limits) in [
                (["kernel/core_pattern": "|/bin/x"], [:]), (["net/../kernel/core_pattern": "x"], [:]),
                ([:], ["cgroup.procs": "1"]), ([:], ["../memory.max": "1"]),
            ] as [([String: String], [String: String])] {
                var state = CarriedRunState()
                (state.sysctls, state.limits) = (sysctls, limits)
                #expect(throws: ContainerError.self) {
                    try state.apply(pid: container.pid, cgroup: hosts.hosts[0].layout.cgroup(of: container.name))
                }
            }
        }
    }
}

private enum ContainerMounts {
    /// Runs a closure on a thread in the mount namespace of a process.
    static func run(in pid: Int32, _ body: () throws(KernelError) -> Void) throws {
        let file = try FileDescriptor(opening: "/proc/\(pid)/ns/mnt", O_RDONLY)
        try OwnThread.run("mounts") { () throws(KernelError) in
            // A thread that shares its root folder with others cannot enter: CLONE_FS, then CLONE_NEWNS.
            try check(clx_unshare(0x200), "unsharing the root folder")
            try check(clx_setns(file.number, 0x2_0000), "entering a mount namespace")
            try body()
        }.get()
    }
}

// Names of network namespaces beside those that ip-netns(8) makes.
import CLinux
import Glibc
import LinuxKernel
import Testing

@testable import Testbed

@Suite(.enabled(if: geteuid() == 0)) struct NamedNetworkTests {
    @Test func theLastNameLeavesNoMount() throws {
        let ours = NamedNetwork("apus-test-\(getpid())")
        func mounts() throws -> Int { try SmallFile.text("/proc/thread-self/mounts").split(separator: "\n").count }
        let counts = try inFreshRun { () throws -> [Int] in
            let before = try mounts()
            try ours.create()
            let meanwhile = try mounts()
            ours.delete()
            return [before, meanwhile, try mounts()]
        }
        #expect(counts[1] == counts[0] + 2 && counts[2] == counts[0], "\(counts)")
    }

    /// On a thread with mounts of its own, where the folder is as on a machine that has just started.
    private func inFreshRun<T>(_ body: () throws -> T) throws -> T {
        try OwnThread.run("mounts") { () throws -> T in
            try check(clx_unshare(0x0002_0000 /* CLONE_NEWNS */), "unsharing mounts")
            try check(clx_mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil), "making mounts private")
            try check(clx_mount("none", "/run", "tmpfs", 0, nil), "mounting a tmpfs")
            return try body()
        }.get()
    }

    /// The first call of `ip netns add` mounts the folder of names over itself.
    @Test func aNameThatWasThereBeforeTheFirstOfIpCanBeTakenAway() throws {
        let ours = NamedNetwork("apus-test-\(getpid())"), other = "apus-test-\(getpid())-ip"
        let isLeft = try inFreshRun { () throws -> Bool in
            try ours.create()
            try Subprocess.run(["ip", "netns", "add", other])
            ours.delete()
            try Subprocess.run(["ip", "netns", "del", other])
            return ours.exists
        }
        #expect(!isLeft)
    }
}

private let MS_REC = 16384
private let MS_PRIVATE = 1 << 18

// State that is not carried refuses the migration before the freeze, by name, and the container runs on.
import Glibc
import LinuxKernel
import Testing
@testable import Migration

/// A kind of state that the holder makes, and what the refusal says of it.
private let refusals: [(kind: String, words: String)] = [
    ("io_uring", "[io_uring], not carried yet"), ("memfd", "memfd, not carried yet"),
    ("memfd-mapping", "mapping of a deleted file, /memfd:held"),
    ("file-mapping", "shared writable mapping of /held"), ("inotify", "inotify, not carried yet"),
    ("signalfd", "[signalfd], not carried yet"), ("timerfd", "[timerfd], not carried yet"),
    ("pidfd", "[pidfd], not carried yet"),
    ("unix", "unix stream socket"), ("udp", "a socket, and the container has no network of its own"),
    ("netlink", "netlink raw socket"),
    ("aio", "/[aio] (deleted)"),
    ("perf", "[perf_event], not carried yet"), ("userfaultfd", "[userfaultfd], not carried yet"),
    ("guard", "a guard region (MADV_GUARD_INSTALL)"), ("sealed", "a sealed mapping"),
    ("droppable", "a droppable mapping"),
    ("key", "a memory protection key"), ("huge", "hugepage"), ("system-v", "/SYSV00000000 (deleted)"),
    ("twice", "shared memory that is mapped twice"), ("filter", "1 seccomp filters where the runtime installs 0"),
    ("tsc", "PR_SET_TSC"), ("no-exec", "PR_SET_MDWE"), ("merge", "PR_SET_MEMORY_MERGE"),
    ("memory-errors", "PR_MCE_KILL"),
    ("numa", "NUMA memory policy"), ("range-policy", "a NUMA memory policy, interleave:0, not carried yet"),
    ("lock-future", "mlockall with MCL_FUTURE"), ("child", "more than one process"), ("lock", "file lock on /held"),
    ("record-lock", "file lock on /held"), ("lease", "lease on /held, not carried yet"),
    ("deleted", "deleted file, /held"),
    ("named-pipe", "named pipe /pipe"), ("half-pipe", "pipe whose other end is not in the process"),
    ("path-only", "opened for its path alone (O_PATH)"), ("secret", "memfd_secret, not carried yet"),
    ("half-read", "directory / that is read in part"), ("notify", "directory / with an owner for signals (F_NOTIFY"),
    ("pipe-again", "pipe opened again through /proc"),
    ("asynchronous", "signal-driven I/O"), ("processor-timer", "timer 0 of pid"), ("folder", "working directory"),
    ("root", "changed by chroot"), ("user-namespace", "user namespace"),
    ("pid-namespace", "another pid namespace for its children"),
    ("thread-files", "a descriptor table of its own"), ("thread-folder", "a working directory and umask of its own"),
    ("thread-network", "a net namespace of its own"), ("zombie", "was not waited for (a zombie)"),
    ("dead-timer", "its thread has ended"), ("no-room", "RLIMIT_AS"),
    ("dispatch", "PR_SET_SYSCALL_USER_DISPATCH"), ("trap", "a SIGTRAP that waits"),
    ("thread-keyring", "a keyring of its own thread"), ("session-key", "keys in its session keyring"),
    ("closed-queue", "POSIX message queue /held"), ("messages", "System V message queue 0"),
    ("semaphores", "System V semaphores 0"), ("detached", "System V shared memory 0"),
]

/// Only the process itself can tell of these, once it is attached.
private let unseenFromOutside: Set<String> = [
    "tsc", "no-exec", "merge", "memory-errors", "lock-future", "no-room", "dispatch", "thread-keyring",
    "session-key",
]

/// What this kernel or a container's privileges do not let a program make.
private let unavailable: Set<String> = ["secret", "key", "huge", "root", "pid-namespace", "thread-network"]

/// It may be on its way back into its call.
private func sleeps(_ pid: Int32) throws -> Bool {
    for _ in 0..<2000 {
        if try SmallFile.text("/proc/\(pid)/status").contains("State:\tS") { return true }
        usleep(5000)
    }
    return false
}

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(5)))
struct RefusalTests {
    @Test func everyUncarriedKindIsRefusedByName() throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        for (kind, words) in refusals {
            let container = try hosts.run("hold-\(kind)", "holder", [kind])
            guard (try? hosts.waitUntilReady(container)) != nil else {
                let log = try hosts.log(container.name, on: 0)
                #expect(unavailable.contains(kind), "\(kind) could not be made: \(log)")
                continue
            }
            let seen = try ObstacleSearch.inspect(container, hosts.hosts[0]).obstacles.map(\.sentence)
            #expect(seen.isEmpty == unseenFromOutside.contains(kind), "\(kind): inspect says \(seen)")
            var plan = MigrationPlan(technique: .preCopy)
            plan.postponeLimit = 0.2
            do {
                _ = try hosts.migrate(container, plan)
                Issue.record("\(kind) was moved")
            } catch {
                for sentence in seen { #expect("\(error)".contains(sentence), "\(kind): \(error)") }
                #expect("\(error)".contains(words), "\(kind): \(error)")
                #expect("\(error)".contains("pid \(container.pid) (holder)"), "\(kind): \(error)")
            }
            #expect(kill(container.pid, 0) == 0, "\(kind): the source is gone")
            #expect(try sleeps(container.pid), "\(kind): the source does not wait as before")
            try hosts.runtime(0).delete(container.name, force: true)
        }
    }

    /// What cannot be looked into like others is named too: a 32-bit program, and one whose first thread has ended.
    @Test(arguments: [("narrow", "a 32-bit program"), ("leader", "it has ended while 1 other threads go on")])
    func otherKindsOfProcessAreRefusedByName(_ kind: String, _ words: String) throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run("hold-\(kind)", kind == "narrow" ? "narrow" : "holder", [kind])
        try hosts.waitUntilReady(container)
        for _ in 0..<500 where kind == "leader" && !isZombie(container.pid) { usleep(1000) }
        do {
            _ = try hosts.migrate(container, MigrationPlan(technique: .preCopy))
            Issue.record("\(kind) was moved")
        } catch { #expect("\(error)".contains(words), "\(kind): \(error)") }
        #expect(try ProcessStatus(pid: container.pid)["TracerPid"] == "0")
        if kind == "narrow" {
            let seen = try ObstacleSearch.inspect(container, hosts.hosts[0]).obstacles
            #expect(seen.count == 1 && seen[0].why.contains(words))
        }
    }
}

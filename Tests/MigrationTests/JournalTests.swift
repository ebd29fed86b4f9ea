// What a journal leaves behind, and what a host says by it.
import Containers
import Foundation
import Glibc
import LinuxKernel
import Testing

@testable import Migration

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(1)))
struct JournalTests {
    @Test(arguments: [JournalHeader.Role.source, .destination])
    func aSettledJournalThatWasNotRemovedIsNoDoubt(_ role: JournalHeader.Role) throws {
        let folder = "/tmp/apus-journals-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let journal = try Journal(
            JournalHeader(
                migration: "m", role: role, container: "c", pid: 0, startTime: 0, peer: "", agent: getpid()), in: folder
        )
        try journal.state(.frozen)
        #expect(Recovery.trace(of: "m", in: folder)?.state == .inDoubt)
        // Its writer dies between the last line and the removal.
        try journal.write(.settled)
        #expect(Recovery.trace(of: "m", in: folder) == nil)
        #expect(OpenJournal(path: journal.path) == nil)
        #expect(access(journal.path, F_OK) != 0)
    }

    @Test func aProcessThatCannotBeHeldLeavesNoJournalAndNoGuard() throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        var container = try hosts.run("brief", "dirtier", ["--memory", "1M", "--rate", "10", "--threads", "2"])
        try hosts.waitUntilReady(container)
        // A thread stands for a process that is gone when the session reaches for it: it has a start time and a cgroup,
        // and no pidfd can be had of it.
        let pid = container.pid
        container.pid = try #require(try ProcessFiles.tasks(of: pid).first { $0 != pid })
        var host = hosts.hosts[0]
        let program = (try ProcessFiles.link("/proc/self/exe") as NSString).deletingLastPathComponent + "/apus"
        host.guarding = GuardCommand(executable: program)
        let listener = try TwoHosts.listen().0
        #expect(throws: KernelError.self) {
            _ = try SourceSession(
                id: "brief", container: container, host: host, destination: "127.0.0.1:1",
                plan: MigrationPlan(technique: .cold), control: MigrationControl(), connection: listener
            ).run()
        }
        #expect(try Folder.names(host.journals) == [])
        let guards = try Folder.names("/proc").filter {
            ((try? SmallFile.text("/proc/\($0)/cmdline")) ?? "").contains(host.layout.runFolder)
        }
        #expect(guards == [])
    }
}

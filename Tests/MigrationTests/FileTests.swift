// The files of containers that move while they change.
import Engine
import Glibc
import LinuxKernel
import Testing

@testable import Migration

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(3)))
struct FileTests {
    /// Moves a program that checks its files, there and back, and hears that all are right.
    private func move(
        _ arguments: [String], _ techniques: [Technique], temporary: [String: UInt64] = [:], moves: Int = 2,
        _ look: (MigrationReport) -> Void = { _ in }
    ) throws {
        for technique in techniques {
            let hosts = try TwoHosts()
            defer { hosts.tearDown() }
            var container = try hosts.run("filer", "filer", arguments, temporary: temporary)
            try hosts.waitUntilReady(container)
            for hop in 0..<moves {
                let (report, moved) = try hosts.migrate(container, from: hop % 2, MigrationPlan(technique: technique))
                container = moved
                let verdict = try hosts.verdict(container, on: 1 - hop % 2)
                #expect(verdict.contains("\"oracle\":\"ok\""), "\(technique), move \(hop): \(verdict)")
                look(report)
            }
        }
    }

    /// A file that is renamed away and replaced right before the freeze, on the root file system and on a tmpfs: the
    /// program goes on with the file at the path. Its working directory and another file have names that end in "
    /// (deleted)".
    @Test(arguments: Technique.allCases) func anOpenFileStaysTheFileAtItsPath(_ technique: Technique) throws {
        try move(["rotate", "1500", "/data", "/temporary"], [technique], temporary: ["/temporary": 8 << 20], moves: 6)
    }

    /// All of it travels once; after that only blocks that are written to do, however often one looks.
    @Test func aLargeFileTravelsOnce() throws {
        try move(["database", "48", "/data"], [.preCopy, .cold]) { report in
            #expect(report.bytesSent < 60 << 20, "\(report.bytesSent) bytes sent for a file of 48 MiB")
        }
    }

    /// On a tmpfs nothing tells what is written. That comparing the file takes longer than the container may stand
    /// still is known before it is stopped.
    @Test func aLargeFileThatHasToBeComparedIsNamedBeforeTheFreeze() throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run(
            "filer", "filer", ["database", "192", "/temporary"], temporary: ["/temporary": 256 << 20])
        try hosts.waitUntilReady(container)
        var plan = MigrationPlan(technique: .preCopy)
        (plan.freezeLimit, plan.postponeLimit) = (25, 0.5)
        let error = #expect(throws: MigrationError.self) { try hosts.migrate(container, plan) }
        #expect(error?.kind == .refused)
        #expect(
            error?.message.contains("nothing tells which parts of /temporary/large are written to") == true, "\(error!)"
        )
        #expect(error?.message.contains("stopped the container") == false, "\(error!)")
        #expect(try hosts.verdict(container, on: 0).contains("\"oracle\":\"ok\""))
        plan.freezeLimit = nil
        let (_, moved) = try hosts.migrate(container, plan)
        #expect(try hosts.verdict(moved, on: 1).contains("\"oracle\":\"ok\""))
    }

    /// Of a file of a hundred gigabytes that are mostly holes only the data is read and sent.
    @Test func aSparseFileStaysSparse() throws {
        try move(["sparse", "100", "/data"], [.migrror]) { report in
            #expect(report.bytesSent < 30 << 20, "\(report.bytesSent) bytes sent")
        }
    }

    /// SQLite remembers the inode number of a database, but for one in WAL mode.
    @Test func aDatabaseThatRemembersItsInodeIsRefusedUnlessToldOtherwise() throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run("base", "filer", ["sqlite", "/data"])
        try hosts.waitUntilReady(container)
        let error = hosts.failure(of: container, MigrationPlan(technique: .cold))
        #expect(error?.kind == .refused)
        #expect(error?.message.contains("/data/base.db is a SQLite database in rollback journal mode") == true)
        #expect(error?.message.contains("--accept inode-numbers") == true)
        #expect(hosts.traces(of: container) == [])
        let shown = try EngineInspector().inspect(pid: container.pid).obstacles.map(\.why)
        #expect(shown.contains { $0.contains("/data/base.db is a SQLite database") }, "\(shown)")
        var plan = MigrationPlan(technique: .cold)
        plan.accept = [.inodeNumbers]
        let (_, moved) = try hosts.migrate(container, plan)
        #expect(try hosts.verdict(moved, on: 1).contains("\"oracle\":\"ok\""))
        let other = try hosts.run("wal", "filer", ["wal", "/data"])
        try hosts.waitUntilReady(other)
        #expect(try EngineInspector().inspect(pid: other.pid).obstacles.isEmpty)
    }

    /// How far it was read would be another place in the destination's folder.
    @Test func aFolderReadInPartIsRefused() throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run("folder", "filer", ["folder", "/data"])
        try hosts.waitUntilReady(container)
        let error = hosts.failure(of: container, MigrationPlan(technique: .cold))
        #expect(error?.message.contains("directory /data that is read in part") == true)
        #expect(hosts.traces(of: container) == [])
    }

    @Test func manyFilesMoveThereAndBack() throws {
        try move(["many", "3000", "/data"], [.preCopy])
    }
}

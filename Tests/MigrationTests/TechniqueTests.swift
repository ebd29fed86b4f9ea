// Real containers moved by every technique, their memory proved by their own oracle.
import Foundation
import Glibc
import LinuxKernel
import Testing
@testable import Migration

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(5)))
struct TechniqueTests {
    @Test(arguments: Technique.allCases)
    func dirtierMovesExactly(_ technique: Technique) throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        var container = try hosts.run("dirt", "dirtier", ["--memory", "64M", "--rate", "5000", "--threads", "2"])
        try hosts.waitUntilReady(container)
        for hop in 0..<2 {
            var plan = MigrationPlan(technique: technique)
            plan.events = [.scan, .faults][hop % 2]
            let (report, moved) = try hosts.migrate(container, from: hop % 2, plan)
            container = moved
            print(technique, report.engineDowntime, "ms", report.phases.map { "\($0.name) \($0.duration)" })
            for step in report.steps { print("  ", step.side, step.name, Int(step.start), Int(step.duration)) }
            let verdict = try hosts.verdict(container, on: 1 - hop % 2)
            #expect(verdict.contains("\"oracle\":\"ok\""), "\(verdict)")
        }
    }

    /// No spacing, no timeout: nothing but a page fault can cause these syncs.
    @Test func mirrorsByFaultsWithEveryTimerOff() throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run("dirt", "dirtier", ["--memory", "16M", "--rate", "100", "--threads", "1"])
        try hosts.waitUntilReady(container)
        var plan = MigrationPlan(technique: .migrror)
        (plan.handover, plan.events, plan.minSpacing) = (.atTrigger, .faults, 0)
        let control = MigrationControl()
        try OwnThread.start("trigger") {
            for _ in 0..<5000 where control.progress.passes < 20 { usleep(1000) }
            control.triggerHandover()
        }
        let (report, moved) = try hosts.migrate(container, plan, control: control)
        #expect(report.passes.count >= 20)
        #expect(report.events == "faults")
        #expect(try hosts.verdict(moved, on: 1).contains("\"oracle\":\"ok\""))
    }
}

/// Moves by each technique, 51 together; `make torture` makes 2,001.
private let moves = Int(ProcessInfo.processInfo.environment["APUS_TORTURE_MOVES"] ?? "") ?? 17

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(10 + moves / 10)))
struct TortureTests {
    @Test(arguments: Technique.allCases)
    func tortureMovesExactly(_ technique: Technique) throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        var container = try hosts.run("torture", "torture", ["--memory", "32M", "--threads", "3"])
        try hosts.waitUntilReady(container)
        for hop in 0..<moves {
            // It changes memory as fast as it can, which on a busy machine is more than a freeze may send in its limit.
            var plan = MigrationPlan(technique: technique)
            plan.freezeLimit = nil
            container = try hosts.migrate(container, from: hop % 2, plan).1
            let verdict = try hosts.verdict(container, on: 1 - hop % 2)
            try #require(verdict.contains("\"oracle\":\"ok\""), "move \(hop): \(verdict)")
        }
    }

    /// A program that finds less than it set is noticed: the same run with one kind spoiled from within.
    @Test(arguments: ["umask", "pipes", "mask", "overrun", "capabilities"])
    func aSpoiledKindIsNoticed(_ kind: String) throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run("changer", "changer", ["--corrupt-after", "1", "--corrupt-kind", kind])
        for _ in 0..<1000 where try !hosts.log(container.name, on: 0).contains("\"changed\"") { usleep(10_000) }
        #expect(try hosts.log(container.name, on: 0).contains("\"state\":\"changed\",\"kind\":\"\(kind)"))
    }

    /// The changer's files are on a tmpfs: offsets, sizes and content are what it left there.
    @Test(arguments: Technique.allCases)
    func filesOnTmpfsMoveAlong(_ technique: Technique) throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        var container = try hosts.run(
            "changer", "changer", ["--folder", "/scratch", "--kinds", "descriptors,cwd"],
            temporary: ["/scratch": 4 << 20])
        try hosts.waitUntilReady(container)
        for hop in 0..<3 {
            container = try hosts.migrate(container, from: hop % 2, MigrationPlan(technique: technique)).1
            let mounts = try SmallFile.text("/proc/\(container.pid)/mountinfo").split(separator: "\n")
            #expect(mounts.contains { $0.contains(" /scratch ") && $0.contains(" - tmpfs ") })
            let verdict = try hosts.verdict(container, on: 1 - hop % 2)
            try #require(verdict.contains("\"state\":\"ok\""), "move \(hop): \(verdict)")
        }
    }

    @Test(arguments: Technique.allCases)
    func everyKindOfStateMoves(_ technique: Technique) throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        var container = try hosts.run("changer", "changer", [])
        try hosts.waitUntilReady(container)
        for hop in 0..<moves {
            container = try hosts.migrate(container, from: hop % 2, MigrationPlan(technique: technique)).1
            usleep(100_000)
            let verdict = try hosts.verdict(container, on: 1 - hop % 2)
            try #require(verdict.contains("\"state\":\"ok\""), "move \(hop): \(verdict)")
        }
    }
}

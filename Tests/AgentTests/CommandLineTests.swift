// The command line without an agent: what it parses, what it prints, how it exits.
import Agent
import Containers
import Engine
import Foundation
import LinuxKernel
import Migration
import Testbed
import Testing

@testable import apus

@Suite struct CommandLineTests {
    @Test func exitStatusesMeanSomething() {
        #expect(ExitStatus(.badRequest) == .usage && ExitStatus(.containerUnknown) == .notFound)
        #expect(
            ExitStatus(.refused) == .refused && ExitStatus(.nameTaken) == .refused
                && ExitStatus(.cancelled) == .cancelled)
        #expect(ExitStatus(.agentNotRunning) == .unreachable && ExitStatus(.inDoubt) == .inDoubt)
        #expect(ExitStatus(.failed) == .failed && ExitStatus(.runtimeFailed) == .failed)
        // No error is a success.
        #expect(AgentError.Code.allCases.allSatisfy { ExitStatus($0) != .ok })
        #expect(ExitStatus.allCases.map(\.rawValue) == Array(0...8))
    }

    @Test func tablesAlign() {
        var table = TextTable([.init("NAME"), .init("PAGES", .right), .init("NOTE")])
        table.add(["redis", "12", ""])
        table.add(["a", "123456", "x"])
        #expect(table.text == "NAME    PAGES  NOTE\nredis      12  -\na      123456  x")
    }

    @Test func numbersAreForPeople() {
        #expect(Human.bytes(1023) == "1023 B" && Human.bytes(1536) == "1.5 KiB" && Human.bytes(1 << 20) == "1.0 MiB")
        #expect(Human.bytes((1 << 20) - 1) == "1.0 MiB" && Human.bytes(UInt64.max) == "16777216.0 TiB")
        #expect(Human.rate(118_800_000) == "950.4 Mbit/s" && Human.rate(250e6) == "2.00 Gbit/s")
        #expect(Human.duration(1.239) == "1.24 ms" && Human.duration(3500) == "3.50 s")
        #expect(Human.fixed(-0.04, 1) == "0.0" && Human.fixed(-1.25, 1) == "-1.3" && Human.fixed(.infinity, 1) == "inf")
    }

    @Test(arguments: ["cold", "pre-copy", "precopy", "Pre-Copy", "migrror", "MiGrror"]) func techniquesHaveTheirNames(
        name: String
    ) {
        #expect(Technique(argument: name) != nil)
    }

    @Test func plansAreParsedAndChecked() throws {
        let parsed = try #require(
            try Apus.parseAsRoot([
                "migrate", "web", "--to", "b", "--technique", "migrror", "--min-spacing", "2.5", "--event-pages", "4",
                "--events", "faults", "--handover", "at-trigger",
            ]) as? MigrateCommand)
        let plan = try parsed.plan()
        #expect(plan.technique == .migrror && plan.minSpacing == 2.5 && plan.eventPages == 4)
        #expect(plan.events == .faults && plan.handover == .atTrigger && plan.maxRounds == 30)
        let textbook = try #require(
            try Apus.parseAsRoot([
                "migrate", "web", "--to", "b", "--technique", "pre-copy", "--preset", "xen", "--stop-pages", "7",
                "--run-up", "on",
            ]) as? MigrateCommand
        ).plan()
        #expect(textbook.maxRounds == 5 && textbook.stopPages == 7 && textbook.runUp == MigrationPlan.usualRunUp)
        for wrong in [
            ["--technique", "warp"], ["--technique", "pre-copy", "--max-rounds", "0"],
            ["--technique", "migrror", "--min-spacing", "soon"], ["--technique", "pre-copy", "--ready-within=-1"],
            ["--technique", "pre-copy", "--round-interval", "nan"], ["--technique", "pre-copy", "--event-pages", "2"],
            ["--technique", "MiGrror", "--max-rounds", "2"], ["--technique", "cold", "--min-spacing", "2"],
            ["--technique", "cold", "--run-up", "off"], ["--technique", "MiGrror", "--preset", "xen"],
            ["--technique", "pre-copy", "--run-up", "never"], ["--technique", "pre-copy", "--wait-interval", "-1"],
        ] {
            #expect(throws: (any Error).self, "\(wrong)") {
                try Apus.parseAsRoot(["migrate", "web", "--to", "b"] + wrong)
            }
        }
    }

    @Test func agentsOptionsAreChecked() throws {
        #expect(throws: (any Error).self) { try Apus.parseAsRoot(["agent", "--host", "a/b"]) }
        #expect(throws: (any Error).self) { try Apus.parseAsRoot(["agent", "--host", "a", "--peer", "b=somewhere"]) }
        #expect(throws: (any Error).self) { try Apus.parseAsRoot(["agent", "--host", "a", "--bridge", "br0"]) }
        #expect(throws: (any Error).self) { try Apus.parseAsRoot(["agent", "--host", "a", "--listen", "localhost:1"]) }
        _ = try Apus.parseAsRoot(["agent", "--host", "a", "--peer", "b=10.0.0.2:7700", "--listen", "10.0.0.1"])
        // A bridge needs a port towards every host.
        let bridge = ["agent", "--host", "a", "--bridge", "br0"]
        let (b, c) = (["--peer", "b=10.0.0.2,port=x2"], ["--peer", "c=10.0.0.3:7700"])
        _ = try Apus.parseAsRoot(bridge + b)
        _ = try Apus.parseAsRoot(bridge + b + c + ["--backhaul", "x"])
        #expect(throws: (any Error).self) { try Apus.parseAsRoot(bridge + b + c) }
        for wrong in ["b=10.0.0.2,port=", "b=10.0.0.2,link=x2", "b=10.0.0.2,port=a-name-of-16-byt"] {
            #expect(throws: (any Error).self, "\(wrong)") { try Apus.parseAsRoot(bridge + ["--peer", wrong]) }
        }
    }

    @Test(arguments: [[], ["migrate"], ["testbed", "up"]]) func helpIsASuccess(_ command: [String]) throws {
        let pipe = Pipe()
        let process = Process()
        process.executableURL = URL(fileURLWithPath: ".build/release/apus")
        process.arguments = command + ["--help"]
        process.standardOutput = pipe
        try process.run()
        let text = String(decoding: try pipe.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0 && text.contains("USAGE: apus"))
    }

    @Test func signalsHaveNamesAndNumbers() {
        #expect(KillCommand.number(of: "TERM") == 15 && KillCommand.number(of: "sigkill") == 9)
        #expect(
            KillCommand.number(of: "34") == 34 && KillCommand.number(of: "0") == nil
                && KillCommand.number(of: "X") == nil)
    }

    @Test func addressesAreNumeric() {
        #expect(PeerAddress("10.0.0.1")?.port == 7700 && PeerAddress("10.0.0.1:80")?.port == 80)
        #expect(PeerAddress("[fd00::1]:80")?.host == "fd00::1" && PeerAddress("fd00::1")?.port == 7700)
        #expect(PeerAddress("[fd00::1]:80")?.description == "[fd00::1]:80")
        for wrong in ["", "host", "10.0.0.1:x", "10.0.0.1:70000", "[fd00::1", "[fd00::1]80", "1.2.3.4.5"] {
            #expect(PeerAddress(wrong) == nil, "\(wrong)")
        }
        #expect(
            PeerAddress("127.0.0.1")!.isLoopback && PeerAddress("::1")!.isLoopback
                && !PeerAddress("10.0.0.1")!.isLoopback)
    }

    @Test func whatCannotBeCarriedIsASentence() {
        var report = InspectReport(processes: [.init(pid: 12, innerPid: 1, parent: 0, name: "redis-server")])
        #expect(InspectCommand.text(report).contains("Everything found can be carried."))
        report.obstacles = [.init(pid: 12, process: "redis-server", what: "fd 9 (io_uring)", why: "not carried yet")]
        #expect(InspectCommand.text(report).contains("fd 9 (io_uring) of pid 12 (redis-server): not carried yet"))
    }
}

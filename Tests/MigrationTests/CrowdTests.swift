// Containers with very much of one kind, moved there and back: each of it is as it was.
import Glibc
import LinuxKernel
import Testing
@testable import Migration

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(5)))
struct CrowdTests {
    @Test(arguments: [("threads", 400), ("mappings", 6000)])
    func aCrowdMovesExactly(_ kind: String, _ number: Int) throws {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        var container = try hosts.run("crowd", "crowd", [kind, "\(number)"])
        try hosts.waitUntilReady(container)
        for hop in 0..<2 {
            let plan = MigrationPlan(technique: [.preCopy, .migrror][hop])
            let (report, moved) = try hosts.migrate(container, from: hop, plan)
            container = moved
            print(kind, number, report.engineDowntime, "ms")
            for step in report.steps { print("  ", step.side, step.name, Int(step.start), Int(step.duration)) }
            let verdict = try hosts.verdict(container, on: 1 - hop)
            #expect(verdict.contains("\"oracle\":\"ok\""), "\(verdict)")
        }
    }
}

// Programs with many descriptors, or with descriptors at the limit, moved there and back; they check themselves.
import Glibc
import LinuxKernel
import Testing

@testable import Migration

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct DescriptorTests {
    /// - Parameter limit: of open files, by its configuration.
    private func move(
        _ arguments: [String], _ techniques: [Technique] = Technique.allCases, limit: Int64 = 15_500
    ) throws -> [Double] {
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        var container = try hosts.run("opener", "opener", arguments) { config in
            config.tree["process"]!["rlimits"] = .array([
                .object(["type": .string("RLIMIT_NOFILE"), "soft": .integer(limit), "hard": .integer(limit)])
            ])
        }
        try hosts.waitUntilReady(container)
        var downtimes: [Double] = []
        for (hop, technique) in techniques.enumerated() {
            var plan = MigrationPlan(technique: technique)
            plan.freezeLimit = nil
            let (report, moved) = try hosts.migrate(container, from: hop % 2, plan)
            container = moved
            let verdict = try hosts.verdict(container, on: 1 - hop % 2)
            try #require(verdict.contains("\"oracle\":\"ok\""), "\(arguments), \(technique): \(verdict)")
            downtimes.append(report.engineDowntime)
            print("\(arguments), \(technique):", report.engineDowntime, "ms")
            if arguments[0] == "many" {
                for step in report.steps where step.duration > 500 {
                    print("  ", step.side, step.name, Int(step.start), Int(step.duration))
                }
            }
        }
        return downtimes
    }

    /// Numbers are used up, a limit is lower than what is open, and the ends of pipes stand in the wrong order.
    @Test(arguments: [
        ["pipes", "300"], ["top", "15500"], ["full", "600", "hard"], ["same", "600"], ["many", "1000"],
        ["many", "15000"],
        ["folder", "500"],
    ]) func numbersAndFilesAreAsBefore(_ arguments: [String]) throws {
        _ = try move(arguments, arguments == ["many", "15000"] ? [.preCopy] : [.cold, .preCopy])
    }

    /// No number is free for the descriptor by which memory is watched.
    @Test(arguments: [["full", "100"], ["lowered", "300"]])
    func aFullTableIsMovedByColdAndRefusedByTheOthers(_ arguments: [String]) throws {
        _ = try move(arguments, [.cold, .cold])
        let hosts = try TwoHosts()
        defer { hosts.tearDown() }
        let container = try hosts.run("opener", "opener", arguments)
        try hosts.waitUntilReady(container)
        let error = hosts.failure(of: container, MigrationPlan(technique: .preCopy))
        #expect(
            error?.kind == .refused && error?.message.contains("RLIMIT_NOFILE") == true, "\(String(describing: error))")
        #expect(hosts.traces(of: container) == [])
        #expect(try hosts.verdict(container, on: 0).contains("\"oracle\":\"ok\""))
    }

    /// All numbers that its configuration lets it have are taken, and the engine needs more to make them again.
    @Test func theLimitOfItsConfigurationDoesNotMeetTheRestore() throws {
        _ = try move(["full", "100"], [.cold, .cold], limit: 100)
    }

    /// An item of an epoll set goes on watching its file though its number was closed, or is another file by now.
    @Test func epollItemsGoByFileAndNotByNumber() throws {
        _ = try move(["alias", "100"])
    }
}

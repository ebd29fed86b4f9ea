// A program that talks to itself over its own network, moved by every technique: nothing is lost and no connection
// ends.
import Agent
import Containers
import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(5)))
struct InsiderTests {
    @Test(arguments: [8, 100]) func bothEndsOfItsConnectionsMove(_ pairs: Int) async throws {
        let testbed = try TestbedHosts("in")
        defer { testbed.tearDown() }
        let hosts = testbed.hosts
        try await testbed.start()
        try await hosts.run("insider", [FaultHosts.address, "\(pairs)"], hasNetwork: true, openFiles: 4096)
        var place = [hosts.a, hosts.b]
        for technique in pairs > 100 ? [Technique.preCopy] : Technique.allCases {
            usleep(200_000)
            let id = try await place[0].client.migrate(
                hosts.container, to: place[1].name, plan: MigrationPlan(technique: technique))
            // On a busy machine a move of 400 ends takes long, and so does the program's look at all of them.
            // In a long freeze it seems to be there before it is.
            try await wait(seconds: 120) {
                let isOver = try await place[0].client.migration(id).isOver
                return isOver && (try? hosts.place()) === place[1] && hosts.mistakes().isEmpty
            }
            let migration = try await place[0].client.migration(id), report = migration.report
            #expect(
                migration.error == nil && migration.isOver,
                "\(migration.progress)\n\(place[0].words)\n\(place[1].words)")
            place.reverse()
            let frames = report?.steps.filter { $0.name == "wait for frames" }.map { Int($0.duration) } ?? []
            print(
                "\(pairs) pairs, \(technique): \(report?.engineDowntime ?? 0) ms, \(report?.handovers.count ?? 0) handovers, "
                    + "waited \(frames) µs for frames")
            usleep(200_000)
            let before = hosts.log(place[0]).split(separator: "\n").count
            let pid = try #require(
                place[0].processes(of: hosts.container).first,
                "\(hosts.mistakes()); log: \(hosts.log(place[0]).suffix(2000))")
            kill(pid, SIGUSR1)
            try await wait(seconds: 90) { hosts.log(place[0]).split(separator: "\n").count > before }
            let verdict = hosts.log(place[0]).split(separator: "\n").last ?? ""
            #expect(verdict.contains("\"oracle\":\"ok\""), "\(technique): \(verdict)")
        }
    }
}

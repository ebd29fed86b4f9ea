// A program that talks to itself over its own network, moved by every technique: nothing is lost and no connection ends.
import Agent
import Containers
import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(5)))
struct InsiderTests {
    private static let address = "10.78.0.10"

    @Test(arguments: [8, 300]) func bothEndsOfItsConnectionsMove(_ pairs: Int) async throws {
        let testbed = Testbed(try Topology(instance: "in\(getpid())"))
        testbed.down()
        try testbed.upNetwork()
        defer { testbed.down() }
        let hosts = try FaultHosts(testbed)
        defer { hosts.tearDown() }
        try await hosts.a.start()
        try await hosts.b.start()
        let path = "\(workloads)/insider"
        var builder = BundleBuilder(programs: [path], arguments: [path, Self.address, "\(pairs)"])
        builder.openFiles = 4096
        try builder.build(in: "\(hosts.folder)/bundle")
        _ = try await hosts.a.client.run(
            RunRequest(
                name: hosts.container, bundle: "\(hosts.folder)/bundle",
                network: .init(mac: "02:42:0a:4e:00:0a", addresses: ["\(Self.address)/24"])))
        try await wait(seconds: 10) { hosts.log(hosts.a).contains("\"ready\"") }
        var place = [hosts.a, hosts.b]
        for technique in pairs > 100 ? [Technique.preCopy] : Technique.allCases {
            usleep(200_000)
            let report = try await place[0].client.migrate(
                hosts.container, to: place[1].name, plan: MigrationPlan(technique: technique))
            try await wait(seconds: 20) { (try? hosts.place()) === place[1] && hosts.mistakes().isEmpty }
            place.reverse()
            print("\(pairs) pairs, \(technique): \(report)")
            usleep(200_000)
            let before = hosts.log(place[0]).split(separator: "\n").count
            let pid = try #require(place[0].processes(of: hosts.container).first)
            kill(pid, SIGUSR1)
            try await wait(seconds: 15) { hosts.log(place[0]).split(separator: "\n").count > before }
            let verdict = hosts.log(place[0]).split(separator: "\n").last ?? ""
            #expect(verdict.contains("\"oracle\":\"ok\""), "\(technique): \(verdict)")
        }
    }
}

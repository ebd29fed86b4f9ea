// An address that was added to a container while it runs goes where the container goes.
import Agent
import Containers
import Foundation
import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct AddedAddressTests {
    @Test func addedAddressAndRouteMoveAlongThereAndBack() async throws {
        let testbed = Testbed(try Topology(instance: "ad\(getpid())"))
        testbed.down()
        try testbed.upNetwork()
        defer { testbed.down() }
        let hosts = try FaultHosts(testbed)
        defer { hosts.tearDown() }
        try await hosts.a.start()
        try await hosts.b.start()
        let path = "\(workloads)/echoer"
        try BundleBuilder(programs: [path], arguments: [path, "5000", "0"]).build(in: "\(hosts.folder)/bundle")
        _ = try await hosts.a.client.run(
            RunRequest(
                name: hosts.container, bundle: "\(hosts.folder)/bundle",
                network: .init(mac: "02:42:0a:4e:00:0a", addresses: ["10.78.0.10/24"])))
        try await wait(seconds: 10) { hosts.log(hosts.a).contains("\"ready\"") }
        let added = "ip address add 10.78.0.77/24 dev eth0; ip route add default via 10.78.0.1"
        let pid = try #require(hosts.a.processes(of: hosts.container).first)
        try Subprocess.run(["nsenter", "-n", "-t", "\(pid)", "sh", "-c", added])
        for (from, to) in [(hosts.a, hosts.b), (hosts.b, hosts.a)] {
            let id = try await from.client.migrate(
                hosts.container, to: to.name, plan: MigrationPlan(technique: .preCopy))
            let end = try await from.client.wait(for: id, every: .milliseconds(10))
            try #require(end.error == nil, "\(end.error?.message ?? "")")
            try await wait { hosts.mistakes().isEmpty }
            for address in ["10.78.0.10", "10.78.0.77"] {
                _ = try Ping.roundTrip(from: testbed.topology.userDevice, to: address, seconds: 3)
            }
            let record = try #require(try await to.client.container(hosts.container).record.network)
            #expect(record.addresses.contains("10.78.0.77/24") && record.gateways == ["10.78.0.1"])
        }
        // A route to somewhere else travels with nothing.
        let back = try #require(hosts.a.processes(of: hosts.container).first)
        try Subprocess.run(["nsenter", "-n", "-t", "\(back)", "ip", "route", "add", "10.9.0.0/16", "via", "10.78.0.1"])
        let words = "route 10.9.0.0/16 by 10.78.0.1 at eth0"
        let found = try await hosts.a.client.inspect(hosts.container).obstacles.map(\.sentence)
        #expect(found.contains { $0.contains(words) }, "\(found)")
        let id = try await hosts.a.client.migrate(
            hosts.container, to: hosts.b.name, plan: MigrationPlan(technique: .cold))
        let end = try await hosts.a.client.wait(for: id, every: .milliseconds(10))
        #expect(end.error?.code == .refused && end.error?.message.contains(words) == true, "\(end.error as Any)")
    }
}

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
        let testbed = try TestbedHosts("ad")
        defer { testbed.tearDown() }
        let hosts = testbed.hosts
        try await testbed.start()
        try await hosts.run("echoer", ["5000", "0"], hasNetwork: true)
        let added = "ip address add 10.78.0.77/24 dev eth0; ip route add default via 10.78.0.1"
        let pid = try #require(hosts.a.processes(of: hosts.container).first)
        try Subprocess.run(["nsenter", "-n", "-t", "\(pid)", "sh", "-c", added])
        for (from, to) in [(hosts.a, hosts.b), (hosts.b, hosts.a)] {
            let id = try await from.client.migrate(
                hosts.container, to: to.name, plan: MigrationPlan(technique: .preCopy))
            let end = try await from.client.wait(for: id, every: .milliseconds(10))
            try #require(end.error == nil, "\(end.error?.message ?? "")")
            try await wait { hosts.mistakes().isEmpty }
            for address in [FaultHosts.address, "10.78.0.77"] {
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

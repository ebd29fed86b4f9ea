// Three hosts, three access points, three users: a container moves around while its client does.
import Agent
import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct CityTests {
    private func testbed(_ instance: String) throws -> Testbed {
        Testbed(try Topology(file: "Topologies/city.yaml", instance: instance))
    }

    @Test func everythingReachesEverything() throws {
        let testbed = try testbed("tb-city")
        testbed.down()
        try testbed.upNetwork()
        defer { testbed.down() }
        let status = try Testbed(standing: "tb-city").status()
        #expect(status.checks.count == 3 * 3 + 3 + 3 * 2)
        for check in status.checks { #expect(check.passed, "\(check.name): \(check.detail)") }
        for user in testbed.topology.userDevices {
            #expect(try testbed.accessPoint(of: user)?.name == user.accessPoint)
        }
        // Each way between two hosts is one of its own.
        let routes = try runProgram("ip", ["route"], namespace: testbed.topology.hosts[0].namespace)
        #expect(routes.contains("10.77.0.2 dev bkh2") && routes.contains("10.77.0.3 dev bkh3"))
        Testbed(try Topology(instance: "tb-city")).down()
        #expect(testbed.leftovers() == [], "known by its record, not by what the caller says")
    }

    /// A record that cannot be read leaves the names of the namespaces.
    @Test func removedWithoutARecord() throws {
        let testbed = try testbed("tb-city")
        try testbed.upNetwork()
        let other = Testbed(try Topology(instance: "tb-city-2"))
        defer { other.down() }
        try other.upNetwork()
        try SmallFile.write("{", to: TestbedState.path("tb-city"))
        let standing = try Testbed(standing: "tb-city")
        standing.down()
        #expect(standing.leftovers() == [] && testbed.leftovers() == [])
        #expect(try other.status().checks.allSatisfy(\.passed))
    }

    /// Nothing passes while a user has no link; afterwards every host is reached by the new one, at once.
    @Test func userIsHandedOver() async throws {
        let testbed = try testbed("tb-city")
        testbed.down()
        try testbed.upNetwork()
        defer { testbed.down() }
        let (user, points) = (testbed.topology.userDevices[0], testbed.topology.accessPoints)
        for point in [points[1], points[2], points[0]] {
            let handoff = try await testbed.attach(user, to: point, reconnection: 20)
            #expect(handoff.joinedAt - handoff.leftAt >= 20_000_000)
            #expect(try testbed.accessPoint(of: user) == point)
            for host in testbed.topology.hosts {
                // The other way round: does the network know where the user is?
                _ = try Ping.roundTrip(from: host.namespace, to: user.address, seconds: 1)
            }
            // It is heard by one access point alone.
            for other in points {
                let route = try NetlinkSocket(in: NetworkNamespace(opening: other.namespace.path))
                let port = try route.link(user.farPort).index
                let heard = try route.forwardingEntries().contains {
                    $0.mac == MACAddress(user.mac) && $0.port == port
                }
                #expect(heard == (other == point), "\(user.name) at \(other.name)")
            }
        }
        #expect(try await testbed.attach(user, to: points[0], reconnection: 50).from == points[0].name)
        await #expect(throws: TestbedError.self) { try await testbed.attach(user, to: points[1], reconnection: -1) }
    }

    /// The container goes over all hosts and comes back, so each host has been source and destination and has stale
    /// knowledge of the time before.
    @Test func containerMovesAroundWhileItsClientDoes() async throws {
        let testbed = try testbed("tb-city")
        testbed.down()
        try testbed.upNetwork()
        defer { testbed.down() }
        let program = try #require(try BuiltProgram.path(), "the apus program stands beside the tests")
        try await testbed.waitForAgents(try testbed.spawnAgents(executable: program))
        let (hosts, points) = (testbed.topology.hosts, testbed.topology.accessPoints)
        let workload = testbed.workload(WorkloadOptions(kind: .redis, memory: 4 << 20), programs: ".build/workloads")
        try await workload.start(on: hosts[0])
        do {
            var moves: [Move] = []
            for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2), (2, 1), (1, 0)] {
                async let handoff = testbed.attach(
                    testbed.topology.userDevices[0], to: points[to], reconnection: 0)
                let report = try await AgentHosts().migrate(
                    workload.containers[0], from: hosts[from], to: hosts[to], plan: MigrationPlan(technique: .migrror),
                    progress: { _ in })
                _ = try await handoff
                moves.append(Move(workload.containers[0], from: hosts[from], to: hosts[to], report))
                // No host knows a way that has become wrong, and no entry that can never age is left.
                for host in hosts {
                    let route = try NetlinkSocket(in: NetworkNamespace(opening: host.namespace.path))
                    let static_ = try route.forwardingEntries().filter {
                        $0.mac == MACAddress("02:42:0a:4e:00:0a") && $0.isStatic
                    }
                    #expect(static_ == [] || host == hosts[to], "\(host.name) after \(moves.count) moves")
                }
            }
            let outcome = try await workload.finish(after: moves)
            for verdict in outcome.verdicts { #expect(verdict.passed, "\(verdict)") }
            #expect(moves.count == 6)
        } catch {
            await workload.abandon()
            throw error
        }
        testbed.down()
        #expect(testbed.leftovers() == [])
    }
}

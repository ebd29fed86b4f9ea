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
        let other = Testbed(try Topology(instance: "tb-city-2"))
        for each in [testbed, other] { each.down() }
        defer { for each in [testbed, other] { each.down() } }
        try testbed.upNetwork()
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

    /// Links with a delay: as far as told, changed while they stand, by a trace too; silent when their process has
    /// died.
    @Test func emulatedLinksDoWhatTheFileSays() async throws {
        let testbed = Testbed(try Topology(file: "Topologies/far.yaml", instance: "tb-far"))
        testbed.down()
        let program = try #require(try BuiltProgram.path(), "the apus program stands beside the tests")
        try testbed.upNetwork(executable: program)
        defer { testbed.down() }
        let (topology, user) = (testbed.topology, testbed.topology.userDevices[0])
        func milliseconds(_ host: EdgeHost) throws -> Double {
            let times = try (0..<5).map { _ in
                try Ping.roundTrip(from: user.namespace, to: host.accessAddress, seconds: 5)
            }
            return Double(times.min()!) / 1e6
        }
        // The radio link has 3 ± 1 ms each way, the way over the core 2 × 2.5 ms more.
        #expect(try milliseconds(topology.hosts[0]) >= 4)
        #expect(try milliseconds(topology.hosts[1]) >= 14)
        let trip = try Ping.roundTrip(
            from: topology.hosts[0].namespace, to: topology.hosts[1].backhaulAddress, seconds: 5)
        #expect(trip >= 10_000_000)

        try await testbed.attach(user, to: topology.accessPoints[1], reconnection: 5)
        #expect(try milliseconds(topology.hosts[0]) >= 14)

        let radio = try #require(topology.link("ue-1", "ap-2"))
        var change = LinkChange()
        (change.delay, change.jitter, change.loss) = (40, 0, 0)
        try testbed.change(radio, .forward, to: change)
        #expect(try milliseconds(topology.hosts[1]) >= 42)
        #expect(try Testbed(standing: "tb-far").topology.link("ue-1", "ap-2")?.forward.delay == 40, "remembered")
        let trace = try LinkTrace("time,delay,forward.jitter\n0,60,0", file: "t.csv")
        try testbed.play(trace, on: radio)
        // Backward the jitter is still the file's.
        #expect(waitUntil(seconds: 5) { (try? milliseconds(topology.hosts[1])) ?? 0 >= 115 })
        let status = try testbed.linkStatus()
        let played = try #require(status.first { $0.link.name == radio.name })
        #expect(played.link.backward.delay == 60 && (played.forward?.frames ?? 0) > 0)

        for pid in testbed.links.processes { kill(pid, SIGKILL) }
        #expect(waitUntil(seconds: 5) { testbed.links.processes.isEmpty })
        #expect(try testbed.linkStatus().allSatisfy { $0.problem != nil })
        testbed.down()
        #expect(testbed.leftovers() == [])
    }

    /// A link that is a veth pair knows rates; a trace of them is played by a process that is started for it.
    @Test func otherLinksKnowRates() throws {
        let testbed = Testbed(try Topology(instance: "tb-rate"))
        testbed.down()
        try testbed.upNetwork()
        defer { testbed.down() }
        let link = try #require(testbed.topology.link("edge-b", "edge-a"))
        func rate() throws -> String {
            try runProgram(
                "tc", ["class", "show", "dev", "bkh2"], namespace: testbed.topology.hosts[0].namespace)
        }
        #expect(try rate().contains("rate 1Gbit"))
        var change = LinkChange()
        change.rate = LinkRate("300mbit")
        try testbed.change(link, .forward, to: change)
        #expect(try rate().contains("rate 300Mbit"))
        try testbed.setBackhaul(LinkRate("200mbit")!)
        #expect(try rate().contains("rate 200Mbit"))
        change.delay = 1
        #expect(throws: TestbedError.self) { try testbed.change(link, to: change) }
        #expect(try rate().contains("rate 200Mbit"))
        let program = try #require(try BuiltProgram.path(), "the apus program stands beside the tests")
        let trace = try LinkTrace("time,rate\n0,400mbit\n0.1,500mbit", file: "t.csv")
        try testbed.play(trace, on: link, executable: program)
        #expect(try waitUntil(seconds: 5) { try rate().contains("rate 500Mbit") })
        #expect(try testbed.linkStatus().first { $0.link.name == link.name }?.link.forward.rate == LinkRate("500mbit"))
        testbed.down()
        #expect(testbed.leftovers() == [])
    }
}

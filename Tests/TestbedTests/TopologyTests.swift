import Glibc
import LinuxKernel
import Testing

@testable import Testbed

/// Tests that make namespaces need root and run one after the other.
@Suite(.serialized, .enabled(if: geteuid() == 0))
struct TopologyTests {
    @Test(.timeLimit(.minutes(1)))
    func upCheckDownLeavesNothing() throws {
        let testbed = Testbed(try Topology(instance: "tb-net"))
        testbed.down()
        let before = linkCount()
        try testbed.upNetwork()
        defer { testbed.down() }
        let status = try testbed.status()
        #expect(status.stage == "up")
        #expect(status.checks.count == 5)
        for check in status.checks { #expect(check.passed, "\(check.name): \(check.detail)") }
        // A second one of the same name is refused and does not touch the first.
        #expect(throws: TestbedError.self) { try testbed.upNetwork() }
        #expect(try testbed.status().stage == "up")
        testbed.down()
        #expect(testbed.leftovers() == [])
        #expect(linkCount() == before)
        testbed.down()
    }

    @Test(.timeLimit(.minutes(1)))
    func twoInstancesStandSideBySide() throws {
        let one = Testbed(try Topology(instance: "tb-one"))
        let two = Testbed(try Topology(instance: "tb-two", backhaul: .unlimited))
        for testbed in [one, two] { testbed.down() }
        defer { for testbed in [one, two] { testbed.down() } }
        try one.upNetwork()
        try two.upNetwork()
        one.down()
        #expect(try two.status().checks.allSatisfy(\.passed))
        #expect(one.leftovers() == [])
    }

    /// However far it got, `down` removes it: every prefix of the steps is tried by a process that stops there.
    @Test(.timeLimit(.minutes(2)))
    func halfMadeIsRemoved() throws {
        for steps in 0...3 {
            let topology = try Topology(instance: "tb-half")
            let testbed = Testbed(topology)
            testbed.down()
            try TestbedState(topology: topology).save()
            for namespace in topology.namespaces.prefix(steps) { try namespace.create() }
            if steps == 3 {
                // A process that lives in one of them goes too.
                let child = try ChildProcess("sleep", ["1000"], namespace: topology.namespaces[0])
                #expect(testbed.leftovers().count == 4)
                #expect(throws: TestbedError.self) { try testbed.upNetwork() }
                testbed.down()
                #expect(child.wait(seconds: 5) != nil)
            }
            testbed.down()
            #expect(testbed.leftovers() == [])
        }
    }

    /// The program itself, killed at instants all over its work.
    @Test(.timeLimit(.minutes(2)))
    func killedWhileMakingIsRemoved() throws {
        let program = try #require(try BuiltProgram.path(), "the apus program stands beside the tests")
        let testbed = Testbed(try Topology(instance: "tb-kill"))
        testbed.down()
        var unfinished = 0
        for milliseconds in stride(from: 4, through: 80, by: 4) {
            let child = try ChildProcess(program, ["testbed", "up", "--no-agents", "--instance", "tb-kill"])
            usleep(UInt32(milliseconds * 1000))
            child.signal(SIGKILL)
            _ = child.wait(seconds: 5)
            let state = try TestbedState.load(instance: "tb-kill")
            if let state, state.stage == .building { unfinished += 1 }
            testbed.down()
            #expect(testbed.leftovers() == [], "after \(milliseconds) ms")
        }
        #expect(unfinished > 0)
    }

    @Test func unlikelyRatesAreRefused() {
        #expect(LinkRate("1gbit")?.bitsPerSecond == 1_000_000_000)
        #expect(LinkRate("5.5Mbit")?.bitsPerSecond == 5_500_000)
        #expect(LinkRate("unlimited")?.bitsPerSecond == .some(nil))
        #expect(LinkRate("5.5mbit")?.description == "5500kbit")
        for text in ["", "gbit", "-1gbit", "0kbit", "1gb", "1 gbit x", "nangbit", "1e300gbit"] {
            #expect(LinkRate(text) == nil, "\(text)")
        }
        #expect(throws: TestbedError.self) { try Topology(instance: "a/b") }
        #expect(throws: TestbedError.self) { try Topology(instance: "") }
    }

    private func linkCount() -> Int { fileNames("/sys/class/net").count }
}

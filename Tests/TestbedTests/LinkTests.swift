import Foundation
import Glibc
import LinuxKernel
import NetworkTestSupport
import Testing

@testable import Testbed

/// What an emulated link promises, but for its accuracy, which `make bench` measures.
@Suite(.serialized, .enabled(if: geteuid() == 0))
struct LinkTests {
    @Test(.timeLimit(.minutes(1)))
    func tcpEndsRightOverALossyJitteryLink() throws {
        let bed = try LinkBed(
            LinkBed.quality {
                $0.rate = LinkRate("400mbit")!
                ($0.delay, $0.jitter, $0.loss, $0.reorder) = (1, 0.8, 0.3, 0.3)
            })
        defer { bed.down() }
        try Transfer.run(bed, count: 8 << 20)
        let status = try bed.status
        #expect(status.problem == nil)
        for counters in [status.forward, status.backward] {
            #expect(counters.frames > 5000 && counters.bytes > 8 << 20)
            #expect(counters.lost > 0 && counters.early > 0 && counters.refused == 0)
        }
    }

    @Test(.timeLimit(.minutes(1)))
    func tcpEndsRightOverALinkThatDoesNothing() throws {
        let bed = try LinkBed()
        defer { bed.down() }
        try Transfer.run(bed, count: 8 << 20)
        #expect(try bed.status.forward.lost == 0)
    }

    @Test(.timeLimit(.minutes(1)))
    func changesTakeEffect() throws {
        let bed = try LinkBed(LinkBed.quality { $0.delay = 5 }, LinkQuality())
        defer { bed.down() }
        _ = try bed.roundTrip()
        let first = try (0..<5).map { _ in try bed.roundTrip() }.min()!
        #expect(first >= 5 && first < 40)
        try bed.service.change("ab", to: LinkBed.change { $0.delay = 20 })
        #expect(try bed.roundTrip() >= 40)
        try bed.service.change("ab", .backward, to: LinkBed.change { $0.delay = 0 })
        let last = try (0..<5).map { _ in try bed.roundTrip() }.min()!
        #expect(last >= 20 && last < 40)
        #expect(try bed.status.link.forward.delay == 20 && bed.status.link.backward.delay == 0)
        // What is wrong changes nothing.
        #expect(throws: TestbedError.self) { try bed.service.change("ab", to: LinkBed.change { $0.jitter = 21 }) }
        #expect(throws: TestbedError.self) { try bed.service.change("ba", to: LinkBed.change { $0.delay = 1 }) }
        #expect(try bed.status.link.forward.jitter == 0)
        // All lost is silence; none lost speaks again.
        try bed.service.change("ab", .backward, to: LinkBed.change { $0.loss = 100 })
        #expect(throws: TestbedError.self) { try bed.roundTrip(seconds: 0.3) }
        #expect(try bed.status.backward.lost > 0 && bed.status.forward.lost == 0)
        try bed.service.change("ab", to: LinkBed.change { $0.loss = 0 })
        #expect(try bed.roundTrip() >= 20)
    }

    @Test(.timeLimit(.minutes(1)))
    func aTraceIsPlayed() throws {
        let bed = try LinkBed()
        defer { bed.down() }
        _ = try bed.roundTrip()
        let trace = try LinkTrace("time,delay,backward.loss\n0,8,\n1.5,15,\n3,2,50\n", file: "drive.csv")
        let start = monotonicNow()
        try bed.service.play(trace, on: "ab")
        #expect(try bed.status.trace == "drive.csv")
        #expect(try waitUntil(seconds: 5) { try bed.status.link.forward.delay == 8 })
        #expect(try bed.roundTrip() >= 16)
        #expect(try waitUntil(seconds: 10) { try bed.status.link.forward.delay == 15 })
        #expect(monotonicNow() - start >= 1_500_000_000)
        #expect(try bed.roundTrip() >= 30)
        #expect(try waitUntil(seconds: 10) { try bed.status.trace == nil })
        let end = try bed.status.link
        #expect(end.forward.delay == 2 && end.forward.loss == 0 && end.backward.loss == 50)
        // A repeated one begins again until it is stopped.
        try bed.service.play(trace, on: "ab", repeated: true)
        #expect(try waitUntil(seconds: 10) { try bed.status.link.forward.delay == 15 })
        #expect(try waitUntil(seconds: 10) { try bed.status.link.forward.delay == 8 })
        try bed.service.stopPlaying("ab")
        #expect(try bed.status.trace == nil)
        // One that goes out of range somewhere is refused as a whole.
        let wrong = try LinkTrace("time,delay,jitter\n0,50,\n1,,60\n", file: "wrong.csv")
        let error = try #require(throws: TestbedError.self) { try bed.service.play(wrong, on: "ab") }
        #expect(error.description.contains("wrong.csv, at 1 s"), "\(error)")
        #expect(try bed.status.link.forward.delay < 50)
    }

    @Test(.timeLimit(.minutes(1)))
    func jitterKeepsTheOrderAndReorderingDoesNot() throws {
        let bed = try LinkBed(LinkBed.quality { ($0.delay, $0.jitter) = (5, 5) })
        defer { bed.down() }
        _ = try bed.roundTrip()
        #expect(try datagrams(bed) == Array(0..<500))
        try bed.service.change("ab", to: LinkBed.change { $0.reorder = 20 })
        let received = try datagrams(bed)
        #expect(received != received.sorted() && received.sorted() == Array(0..<500))
        let early = try bed.status.forward.early
        #expect(early > 50 && early < 200)
    }

    /// The numbers of 500 datagrams, one each 0.1 ms, in the order of their arrival.
    private func datagrams(_ bed: LinkBed) throws -> [Int] {
        let receiver = try Sockets.bindUDP(try NetworkNamespace(opening: bed.b.path), 7001)
        let sender = try Sockets.socket(try NetworkNamespace(opening: bed.a.path), Int32(SOCK_DGRAM.rawValue))
        // Room for all of them: they are read when the last one has been sent.
        Sockets.set(receiver, SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20)
        defer {
            close(receiver)
            close(sender)
        }
        for number in 0..<500 {
            try Sockets.sendUDP(sender, LinkBed.addressB, 7001, withUnsafeBytes(of: number) { Array($0) })
            usleep(100)
        }
        var received: [Int] = []
        while received.count < 500, Sockets.readable(receiver, within: 500) {
            received.append(Sockets.receive(receiver).withUnsafeBytes { $0.loadUnaligned(as: Int.self) })
        }
        return received
    }

    @Test(.timeLimit(.minutes(1)))
    func theQueueIsLimited() throws {
        let bed = try LinkBed(
            LinkBed.quality {
                $0.rate = LinkRate("1mbit")!
                $0.queue = 10_000
            }, LinkQuality())
        defer { bed.down() }
        _ = try bed.roundTrip()
        let sender = try Sockets.socket(try NetworkNamespace(opening: bed.a.path), Int32(SOCK_DGRAM.rawValue))
        defer { close(sender) }
        let before = try bed.status.forward.frames
        let start = monotonicNow()
        let payload = [UInt8](repeating: 1, count: 958)
        for _ in 0..<100 { try Sockets.sendUDP(sender, LinkBed.addressB, 7001, payload) }
        #expect(try waitUntil(seconds: 10) { try bed.status.forward.frames >= before + 10 })
        // 10 frames of 1,000 bytes wait, one is on the line: each takes 8 ms.
        #expect(monotonicNow() - start >= 72_000_000)
        let counters = try bed.status.forward
        #expect(counters.overflowed >= 80 && counters.overflowed <= 90, "\(counters)")
    }

    @Test(.timeLimit(.minutes(1)))
    func aKilledProcessIsToldAndNothingStays() throws {
        let bed = try LinkBed()
        defer { bed.down() }
        _ = try bed.roundTrip()
        #expect(bed.service.isRunning && bed.service.processes == [bed.process.pid])
        #expect(throws: TestbedError.self) { try bed.service.start([]) }
        bed.process.signal(SIGKILL)
        _ = bed.process.wait(seconds: 5)
        #expect(!bed.service.isRunning)
        #expect(throws: TestbedError.self) { try bed.roundTrip(seconds: 0.2) }
        #expect(throws: TestbedError.self) { try bed.service.status() }
        // The interfaces are there still, and serve a new process.
        let program = try #require(try BuiltProgram.path())
        let ends = [bed.a, bed.b].map { LinkEnd(network: $0.name, interface: "tap0") }
        try bed.service.start([EmulatedLink(name: "ab", a: ends[0], b: ends[1])], executable: program)
        _ = try bed.roundTrip()
        bed.down()
        #expect(bed.leftovers == [])
    }

    @Test(.timeLimit(.minutes(1)))
    func aShapedPairFollowsToo() throws {
        let namespaces = [NamedNetwork("link-test-a"), NamedNetwork("link-test-b")]
        let service = LinkService(instance: "link-test")
        func down() {
            service.end()
            for namespace in namespaces { namespace.delete() }
        }
        down()
        defer { down() }
        for namespace in namespaces { try namespace.create() }
        try runProgram(
            "ip", ["link", "add", "v", "type", "veth", "peer", "name", "v", "netns", namespaces[1].name],
            namespace: namespaces[0])
        func classes(_ index: Int) throws -> String {
            try runProgram("tc", ["class", "show", "dev", "v"], namespace: namespaces[index])
        }
        let ends = namespaces.map { LinkEnd(network: $0.name, interface: "v") }
        var link = EmulatedLink(name: "v", a: ends[0], b: ends[1], means: .shaper)
        link.forward.rate = LinkRate("10mbit")!
        let program = try #require(try BuiltProgram.path())
        try service.start([link], executable: program)
        #expect(try classes(0).contains("rate 10Mbit") && !classes(1).contains("rate"))
        try service.change("v", .backward, to: LinkBed.change { ($0.rate, $0.queue) = (LinkRate("3mbit"), 20_000) })
        #expect(try classes(0).contains("rate 10Mbit") && classes(1).contains("rate 3Mbit"))
        let queues = try runProgram("tc", ["qdisc", "show", "dev", "v"], namespace: namespaces[1])
        #expect(queues.contains("bfifo") && queues.contains("20000b"), "\(queues)")
        let trace = try LinkTrace("time,forward.rate\n0,20mbit\n3,unlimited\n", file: "t.csv")
        try service.play(trace, on: "v")
        #expect(try waitUntil(seconds: 5) { try classes(0).contains("rate 20Mbit") })
        #expect(try waitUntil(seconds: 10) { try !classes(0).contains("rate") })
        // A shaper knows no delay.
        #expect(throws: TestbedError.self) { try service.change("v", to: LinkBed.change { $0.delay = 1 }) }
        #expect(try service.status().first?.problem == nil)
    }

    @Test(.timeLimit(.minutes(1)))
    func aLinkThatCannotBeMadeLeavesNothing() throws {
        let service = LinkService(instance: "link-test")
        defer { service.end() }
        let link = EmulatedLink(
            name: "x", a: LinkEnd(network: "link-test-none", interface: "t"),
            b: LinkEnd(network: "link-test-none", interface: "u"))
        let program = try #require(try BuiltProgram.path())
        let error = try #require(throws: TestbedError.self) { try service.start([link], executable: program) }
        #expect(error.description.contains("link-test-none"), "\(error)")
        #expect(service.processes == [])
        var shaped = link
        (shaped.means, shaped.forward.delay) = (.shaper, 5)
        #expect(throws: TestbedError.self) { try service.start([shaped], executable: program) }
    }
}

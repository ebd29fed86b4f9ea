// The network of a container, and both sides of its handover, in namespaces.
import Foundation
import LinuxKernel
import NetworkTestSupport
import Testing

@testable import Containers

@Suite struct NetworkSpecTests {
    @Test func portNamesFitAndDiffer() {
        #expect(NetworkAttachment.portName("redis", on: "/a") == NetworkAttachment.portName("redis", on: "/a"))
        #expect(NetworkAttachment.portName("redis", on: "/a") != NetworkAttachment.portName("redis", on: "/b"))
        #expect(
            NetworkAttachment.portName("a-very-long-container-name-1", on: "/a")
                != NetworkAttachment.portName("a-very-long-container-name-2", on: "/a"))
        for name in ["r", "a-very-long-container-name", "ä/ö", "_-."] {
            #expect(NetworkAttachment.portName(name, on: "/a").utf8.count <= 15)
        }
    }
    @Test func recordsTravelAsJSON() throws {
        let spec = NetworkSpec(
            mac: MACAddress("02:00:00:00:00:0a")!, addresses: ["10.0.0.2/24"], gateways: ["10.0.0.1"])
        let record = SourceHandoverRecord(
            spec, NetworkAttachment(container: "x", bridge: "br0", backhaul: "bh", folder: "/run/apus"))
        let data = try JSONEncoder().encode(record)
        #expect(String(decoding: data, as: UTF8.self).contains("02:00:00:00:00:0a"))
        #expect(try JSONDecoder().decode(SourceHandoverRecord.self, from: data) == record)
    }
}

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(1))) struct ContainerNetworkTests {
    @Test func attachesAndDetachesCompletely() throws {
        let lab = try Lab()
        let attachment = lab.attachment("a")
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, attachment) }
        let inside = try NetlinkSocket(in: try lab.container("a"))
        let link = try inside.link("eth0")
        #expect(link.mac == lab.spec.mac)
        #expect(try inside.addresses(of: link.index).map(\.description) == ["10.77.0.2/24"])
        #expect(
            try lab.container("a").run { () throws(KernelError) in
                try SmallFile.text("/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
            } == "1")
        // Negative: the host's table of connections is shared.
        #expect(
            try lab.container("a").run { () throws(KernelError) in
                try SmallFile.text("/proc/sys/net/ipv4/tcp_ehash_entries")
            } == "4096")
        let udp = try Sockets.bindUDP(try lab.container("a"), 7)
        let sender = try Sockets.socket(lab.ue, Int32(SOCK_DGRAM.rawValue))
        defer { close(udp); close(sender) }
        try Sockets.sendUDP(sender, lab.address, 7, [1])
        #expect(Sockets.readable(udp, within: 1000))

        #expect(throws: KernelError.self) {
            try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, attachment) }
        }
        for _ in 0..<2 { try lab.a.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, attachment) } }
        #expect(try NetlinkSocket(in: lab.a).linkIfPresent(attachment.port) == nil)
        #expect(lab.files.isEmpty)
    }

    /// A bridge without an address of its own has its ports' lowest: containers that come must not change what the host
    /// is known by.
    @Test func leavesTheBridgeItsAddress() throws {
        let lab = try Lab()
        let route = try NetlinkSocket(in: lab.a)
        let before = try route.link("br").mac
        for number in 1...16 {
            let spec = NetworkSpec(
                mac: MACAddress([0x02, 0, 0, 0, 0x78, UInt8(number)])!, addresses: ["10.77.0.\(100 + number)/24"])
            let attachment = NetworkAttachment(
                container: "c\(number)", bridge: "br", backhaul: "bh", folder: lab.folder)
            try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(spec, attachment) }
            #expect(try route.link("br").mac == before, "container \(number)")
        }
        for number in 1...16 {
            let spec = NetworkSpec(mac: MACAddress([0x02, 0, 0, 0, 0x78, UInt8(number)])!, addresses: [])
            let attachment = NetworkAttachment(
                container: "c\(number)", bridge: "br", backhaul: "bh", folder: lab.folder)
            try lab.a.run { () throws(KernelError) in try ContainerNetwork.detach(spec, attachment) }
        }
        // What begins like it must not come to be it.
        let high = MACAddress("fe:00:00:00:00:01")!
        #expect(ContainerNetwork.portAddress(high) != high)
    }

    /// Switches and neighbours believe a container where it was heard last. One with the same address that starts
    /// elsewhere is reached at once.
    @Test func announcesItself() throws {
        let lab = try Lab()
        let sender = try Sockets.socket(lab.ue, Int32(SOCK_DGRAM.rawValue))
        defer { close(sender) }
        for (host, namespace) in [("b", lab.b), ("a", lab.a), ("b", lab.b)] {
            try namespace.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment(host)) }
            let udp = try Sockets.bindUDP(try lab.container(host), 7)
            defer { close(udp) }
            try Sockets.sendUDP(sender, lab.address, 7, [1])
            #expect(Sockets.readable(udp, within: 1000), "at \(host)")
            try namespace.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment(host)) }
        }
    }

    @Test func anAddressThatSomebodyHasIsNotTaken() throws {
        let lab = try Lab(ipv6: true)
        let attachment = lab.attachment("a")
        // The user device's, of either family; then that of a container at the other host.
        func attach(_ addresses: [String]) throws(KernelError) {
            let spec = NetworkSpec(mac: MACAddress("02:00:00:00:77:55")!, addresses: addresses)
            try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(spec, attachment) }
        }
        try lab.b.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment("b")) }
        for (address, owner) in [
            ("10.77.0.9/24", "02:00:00:00:77:09"), ("fd77::9/64", "02:00:00:00:77:09"),
            ("10.77.0.2/24", "02:00:00:00:77:02"),
        ] {
            let error = #expect(throws: KernelError.self) { try attach(["10.77.0.88/24", address]) }
            #expect(error?.errno == Errno(EADDRINUSE) && error?.operation.contains(owner) == true, "\(address)")
            #expect(try NetlinkSocket(in: lab.a).linkIfPresent(attachment.port) == nil, "nothing is left")
        }
        try attach(["10.77.0.88/24", "fd77::88/64"])
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, attachment) }
        try lab.b.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment("b")) }
    }

    /// Runs something in a host's namespace that throws more than the kernel's errors.
    private func at(_ host: NetworkNamespace, _ body: () throws -> Void) throws {
        nonisolated(unsafe) var failure: (any Error)?
        try host.run { () throws(KernelError) in do { try body() } catch { failure = error } }
        if let failure { throw failure }
    }

    /// A port as anybody makes one floods what it gets, in a circle with the access network.
    @Test func whatTheBridgeSaysToAllDoesNotPassABackhaul() throws {
        let lab = try Lab()
        let route = try NetlinkSocket(in: lab.a)
        let bridge = try route.link("br").index
        try route.add(IPPrefix("10.77.0.50/24")!, to: bridge)
        try route.createVeth("plain", peer: VethPeer(name: "plain", mac: nil, namespace: lab.b))
        for host in [lab.a, lab.b] {
            try at(host) { try ContainerNetwork.makeBackhaul("plain", of: "br") }
            #expect(try NetlinkSocket(in: host).link("plain").isUp)
        }
        #expect(
            try eventually {
                try route.portState(of: route.link("plain").index) == BridgePort.State.forwarding.rawValue
            })
        let before = try ["bh", "plain"].map { try lab.framesSent(lab.a, $0) }
        let sender = try Sockets.socket(lab.a, Int32(SOCK_DGRAM.rawValue))
        defer { close(sender) }
        // Nobody has these addresses: the bridge asks all for them.
        for number in 200..<210 { try? Sockets.sendUDP(sender, "10.77.0.\(number)", 7, [1]) }
        usleep(200_000)
        #expect(try ["bh", "plain"].map { try lab.framesSent(lab.a, $0) } == before)
        // Clients of the access network still reach it.
        let udp = try Sockets.bindUDP(lab.a, 7), client = try Sockets.socket(lab.ue, Int32(SOCK_DGRAM.rawValue))
        defer { close(udp); close(client) }
        try Sockets.sendUDP(client, "10.77.0.50", 7, [1])
        #expect(Sockets.readable(udp, within: 1000))
    }

    @Test func whatCannotBeABackhaulIsNamed() throws {
        let lab = try Lab()
        let route = try NetlinkSocket(in: lab.a)
        try route.createBridge("other", spanningTree: true)
        try route.createVeth("far", peer: VethPeer(name: "far", mac: nil, namespace: lab.b))
        try route.setMaster(try route.link("far").index, try route.link("other").index)
        for (port, bridge, words) in [
            ("nothing", "br", "no interface nothing"), ("bh", "nothing", "no bridge nothing"),
            ("bh", "bh", "no bridge bh"), ("far", "br", "a port of another bridge"), ("far", "other", "spanning tree"),
        ] {
            let error = #expect(throws: ContainerError.self) {
                try at(lab.a) { try ContainerNetwork.makeBackhaul(port, of: bridge) }
            }
            #expect(error?.description.contains(words) == true, "\(port) of \(bridge): \(String(describing: error))")
        }
    }

    /// What a crash in the middle leaves is taken away from the attachment alone.
    @Test func detachesWhatIsHalfMade() throws {
        let lab = try Lab()
        let attachment = lab.attachment("b")
        let route = try NetlinkSocket(in: lab.b)
        let namespace = try NetworkNamespace.create(at: attachment.namespace)
        try route.createVeth(attachment.port, peer: VethPeer(name: "eth0", mac: nil, namespace: namespace))
        try route.request(BridgePort.forward(lab.spec.mac, to: try route.link("bh").index, .sticky), "entry")
        try lab.b.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, attachment) }
        #expect(try route.linkIfPresent(attachment.port) == nil)
        #expect(try route.forwardingEntries().allSatisfy { $0.mac != lab.spec.mac })
        #expect(lab.files.isEmpty)
        #expect(FileManager.default.createFile(atPath: attachment.namespace, contents: nil))  // died before the mount
        try lab.b.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, attachment) }
        #expect(lab.files.isEmpty)
    }

    /// A way that drops what follows the container is no way.
    @Test func backhaulMustForward() throws {
        let lab = try Lab()
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment("a")) }
        let route = try NetlinkSocket(in: lab.a)
        let backhaul = try route.link("bh").index
        func prepare() throws {
            _ = try lab.a.run { () throws(KernelError) in try SourceHandover(lab.spec, lab.attachment("a")) }
        }
        try prepare()
        try route.request(BridgePort.set(backhaul, .disabled), "disabling")
        let error = #expect(throws: KernelError.self) { try prepare() }
        #expect(error?.errno == Errno(ENETDOWN) && error?.operation.contains("bh") == true)
        #expect(throws: KernelError.self) {
            try lab.b.run { () throws(KernelError) in
                try NetlinkSocket().request(
                    BridgePort.set(try NetlinkSocket().link("bh").index, .disabled), "disabling")
                _ = try DestinationHandover.prepare(
                    DestinationHandoverRecord(lab.spec, lab.attachment("b")), neighbours: [])
            }
        }
        #expect(try NetlinkSocket(in: lab.b).linkIfPresent(lab.attachment("b").port) == nil, "nothing is left")
        try route.request(BridgePort.set(backhaul, .forwarding), "enabling")
        try prepare()
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment("a")) }
    }

    /// Frames that come between accept and open are held, in order, and none is lost; before accept none is held.
    @Test func holdsFramesAndLetsThemGo() throws {
        let lab = try Lab()
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment("a")) }
        let atA = try Sockets.bindUDP(try lab.container("a"), 7)
        let sender = try Sockets.socket(lab.ue, Int32(SOCK_DGRAM.rawValue))
        try Sockets.sendUDP(sender, lab.address, 7, [0])
        #expect(Sockets.readable(atA, within: 1000))
        _ = Sockets.receive(atA)

        let source = try lab.a.run { () throws(KernelError) in try SourceHandover(lab.spec, lab.attachment("a")) }
        let neighbours = try lab.a.run { () throws(KernelError) in
            try ContainerNetwork.neighbours(lab.spec, lab.attachment("a"))
        }
        let destination = try lab.b.run { () throws(KernelError) in
            try DestinationHandover.prepare(
                DestinationHandoverRecord(lab.spec, lab.attachment("b")), neighbours: neighbours)
        }
        let atB = try Sockets.bindUDP(try lab.container("b"), 7)
        defer { for fd in [atA, atB, sender] { close(fd) } }
        let route = try NetlinkSocket(in: lab.b)
        let port = try route.link(lab.attachment("b").port).index
        #expect(try route.portState(of: port) == BridgePort.State.disabled.rawValue)
        let burned = try #require(try route.tokenBucketBacklog(of: port)).packets

        try Sockets.sendUDP(sender, lab.address, 7, [1])
        #expect(Sockets.readable(atA, within: 1000))
        #expect(Sockets.receive(atA) == [1])
        try destination.accept()
        try source.redirect()
        try source.silence()
        for n in 2..<102 { try Sockets.sendUDP(sender, lab.address, 7, [UInt8(n)]) }
        usleep(20_000)
        for _ in 0..<2000 where try #require(try route.tokenBucketBacklog(of: port)).packets < burned + 100 {
            usleep(1000)
        }
        #expect(Sockets.receive(atA).isEmpty)
        #expect(Sockets.receive(atB).isEmpty)
        #expect(try #require(try route.tokenBucketBacklog(of: port)).packets == burned + 100)
        try destination.open()
        for n in 2..<102 {
            try #require(Sockets.readable(atB, within: 1000))
            #expect(Sockets.receive(atB) == [UInt8(n)])
        }
        // The access network has been told: nothing needs host a any more.
        try lab.a.run { () throws(KernelError) in try source.retire() }
        try lab.b.run { () throws(KernelError) in try destination.finish() }
        try lab.b.run { () throws(KernelError) in try DestinationHandover.finish(destination.record) }
        try Sockets.sendUDP(sender, lab.address, 7, [200])
        #expect(Sockets.readable(atB, within: 1000))
        #expect(try #require(try route.tokenBucketBacklog(of: port)).packets == 0)
        #expect(try route.forwardingEntries().contains { $0.mac == lab.spec.mac && $0.port == port && !$0.isStatic })
        #expect(try NetlinkSocket(in: lab.a).forwardingEntries().allSatisfy { $0.mac != lab.spec.mac || !$0.isStatic })
        // It moves on before a late `finish`: that does not take its frames back.
        let backhaul = try route.link("bh").index
        try route.request(BridgePort.forward(lab.spec.mac, to: backhaul, .sticky), "moving on")
        try lab.b.run { () throws(KernelError) in try destination.finish() }
        #expect(try route.forwardingEntries().contains { $0.mac == lab.spec.mac && $0.port == backhaul && $0.isStatic })
        try lab.b.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment("b")) }
        try lab.b.run { () throws(KernelError) in try destination.finish() }
        #expect(lab.files.isEmpty)
    }

    /// Back from every step, by a description alone, twice.
    @Test func rollsBackFromEveryStep() throws {
        let lab = try Lab()
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment("a")) }
        let udp = try Sockets.bindUDP(try lab.container("a"), 7)
        let sender = try Sockets.socket(lab.ue, Int32(SOCK_DGRAM.rawValue))
        defer { close(udp); close(sender) }
        try Sockets.sendUDP(sender, lab.address, 7, [0])
        #expect(Sockets.readable(udp, within: 1000))
        _ = Sockets.receive(udp)
        for steps in 0...4 {
            let source = try lab.a.run { () throws(KernelError) in try SourceHandover(lab.spec, lab.attachment("a")) }
            let destination = try lab.b.run { () throws(KernelError) in
                try DestinationHandover.prepare(
                    DestinationHandoverRecord(lab.spec, lab.attachment("b")), neighbours: [])
            }
            if steps > 0 { try destination.accept() }
            if steps > 1 { try source.redirect() }
            if steps > 2 { try source.silence() }
            if steps > 3 { try Sockets.sendUDP(sender, lab.address, 7, [9]) }
            let record = try JSONDecoder().decode(SourceHandoverRecord.self, from: JSONEncoder().encode(source.record))
            let back = { try lab.a.run { () throws(KernelError) in try record.rollback() } }
            let abort = { try lab.b.run { () throws(KernelError) in try destination.abort() } }
            for _ in 0..<2 {
                if steps % 2 == 0 { try abort(); try back() } else { try back(); try abort() }
            }
            try Sockets.sendUDP(sender, lab.address, 7, [UInt8(steps)])
            #expect(Sockets.readable(udp, within: 1000), "after \(steps) steps")
            #expect(Sockets.receive(udp) == [UInt8(steps)])
            #expect(
                try NetlinkSocket(in: lab.b).forwardingEntries().allSatisfy { $0.mac != lab.spec.mac || !$0.isStatic })
            #expect(
                try NetlinkSocket(in: lab.a).forwardingEntries().allSatisfy { $0.mac != lab.spec.mac || !$0.isStatic })
        }
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment("a")) }
    }

    /// The destination is gone while the source still sends the container's frames there: they are lost, and go in no
    /// circle.
    @Test func abortedFramesGoInNoCircle() throws {
        let lab = try Lab()
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment("a")) }
        let udp = try Sockets.bindUDP(try lab.container("a"), 7)
        let user = try Sockets.bindUDP(lab.ue, 9)
        let sender = try Sockets.socket(lab.ue, Int32(SOCK_DGRAM.rawValue))
        defer { for fd in [udp, user, sender] { close(fd) } }
        try Sockets.sendUDP(sender, lab.address, 7, [0])
        try #require(Sockets.readable(udp, within: 1000))
        _ = Sockets.receive(udp)
        let source = try lab.a.run { () throws(KernelError) in try SourceHandover(lab.spec, lab.attachment("a")) }
        let destination = try lab.b.run { () throws(KernelError) in
            try DestinationHandover.prepare(
                DestinationHandoverRecord(lab.spec, lab.attachment("b")), neighbours: [])
        }
        try destination.accept()
        try source.redirect()
        try source.silence()
        try lab.b.run { () throws(KernelError) in try destination.abort() }
        let before = try lab.framesSent(lab.b, "up")
        for n in 0..<10 { try Sockets.sendUDP(sender, lab.address, 7, [UInt8(n)]) }
        usleep(20_000)
        #expect(try lab.framesSent(lab.b, "up") == before)
        try lab.a.run { () throws(KernelError) in try source.rollback() }
        // Nobody has learned that the user is elsewhere: an answer arrives before the user has said anything more.
        try Sockets.sendUDP(udp, "10.77.0.9", 9, [42])
        #expect(Sockets.readable(user, within: 1000))
        #expect(Sockets.receive(user) == [42])
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment("a")) }
    }

    /// Nobody waits for frames at a destination that never accepted them: it leaves nothing that could mislead any.
    @Test func abortedBeforeItsTurnLeavesNoEntry() throws {
        let lab = try Lab()
        for accepts in [false, true] {
            let destination = try lab.b.run { () throws(KernelError) in
                try DestinationHandover.prepare(
                    DestinationHandoverRecord(lab.spec, lab.attachment("b")), neighbours: [])
            }
            if accepts {
                try destination.accept()
                try destination.decline()
            }
            try lab.b.run { () throws(KernelError) in try destination.abort() }
            #expect(try NetlinkSocket(in: lab.b).forwardingEntries().allSatisfy { $0.mac != lab.spec.mac })
        }
    }

    /// The way to the other host is gone, which may be why the source has to run on.
    @Test func sourceComesBackWithoutABackhaul() throws {
        let lab = try Lab()
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment("a")) }
        let udp = try Sockets.bindUDP(try lab.container("a"), 7)
        let sender = try Sockets.socket(lab.ue, Int32(SOCK_DGRAM.rawValue))
        defer { close(udp); close(sender) }
        let source = try lab.a.run { () throws(KernelError) in try SourceHandover(lab.spec, lab.attachment("a")) }
        try source.redirect()
        try source.silence()
        try lab.a.run { () throws(KernelError) in
            try NetlinkSocket().delete(link: try NetlinkSocket().link("bh").index)
            try source.record.rollback()
        }
        try Sockets.sendUDP(sender, lab.address, 7, [1])
        #expect(Sockets.readable(udp, within: 1000))
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment("a")) }
    }

    /// What a handover held that was put off is not delivered by the next: its senders have repeated it.
    @Test func declinedFramesAreDropped() throws {
        let lab = try Lab()
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment("a")) }
        let atA = try Sockets.bindUDP(try lab.container("a"), 7)
        let sender = try Sockets.socket(lab.ue, Int32(SOCK_DGRAM.rawValue))
        try Sockets.sendUDP(sender, lab.address, 7, [0])
        #expect(Sockets.readable(atA, within: 1000))
        _ = Sockets.receive(atA)
        let source = try lab.a.run { () throws(KernelError) in try SourceHandover(lab.spec, lab.attachment("a")) }
        let destination = try lab.b.run { () throws(KernelError) in
            try DestinationHandover.prepare(
                DestinationHandoverRecord(lab.spec, lab.attachment("b")), neighbours: [])
        }
        let atB = try Sockets.bindUDP(try lab.container("b"), 7)
        defer { for fd in [atA, atB, sender] { close(fd) } }
        let route = try NetlinkSocket(in: lab.b)
        let port = try route.link(lab.attachment("b").port).index
        try destination.accept()
        try source.redirect()
        try Sockets.sendUDP(sender, lab.address, 7, [1])
        usleep(20_000)
        try source.rollback()
        try destination.decline()
        #expect(try route.portState(of: port) == BridgePort.State.disabled.rawValue)
        try Sockets.sendUDP(sender, lab.address, 7, [2])
        #expect(Sockets.readable(atA, within: 1000))
        #expect(Sockets.receive(atA) == [2])
        try destination.accept()
        try source.redirect()
        try source.silence()
        try Sockets.sendUDP(sender, lab.address, 7, [3])
        usleep(20_000)
        try destination.open()
        #expect(Sockets.readable(atB, within: 1000))
        #expect(Sockets.receive(atB) == [3])
        for host in ["a", "b"] {
            try (host == "a" ? lab.a : lab.b).run { () throws(KernelError) in
                try ContainerNetwork.detach(lab.spec, lab.attachment(host))
            }
        }
    }

    /// A container that says nothing is forgotten by bridges while it is copied: a frame for it still takes one way.
    @Test func aSilentContainerIsNotForgotten() throws {
        let lab = try Lab(ageing: 1)
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment("a")) }
        let udp = try Sockets.bindUDP(try lab.container("a"), 7)
        let sender = try Sockets.socket(lab.ue, Int32(SOCK_DGRAM.rawValue))
        defer { close(udp); close(sender) }
        try Sockets.sendUDP(sender, lab.address, 7, [0])
        #expect(Sockets.readable(udp, within: 1000))
        _ = Sockets.receive(udp)
        let source = try lab.a.run { () throws(KernelError) in try SourceHandover(lab.spec, lab.attachment("a")) }
        try source.hold()
        let destination = try lab.b.run { () throws(KernelError) in
            try DestinationHandover.prepare(
                DestinationHandoverRecord(lab.spec, lab.attachment("b")), neighbours: [])
        }
        // The access network forgets it; host a does not, and sends nothing back.
        usleep(2_500_000)
        let before = try lab.framesSent(lab.a, "up")
        try Sockets.sendUDP(sender, lab.address, 7, [1])
        #expect(Sockets.readable(udp, within: 1000))
        usleep(20_000)
        #expect(try lab.framesSent(lab.a, "up") - before < 10)
        try source.rollback()
        #expect(
            try NetlinkSocket(in: lab.a).forwardingEntries().contains { $0.mac == lab.spec.mac && !$0.isStatic })
        try lab.b.run { () throws(KernelError) in try destination.abort() }
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment("a")) }
    }

    @Test func namesWhatIsNotThere() throws {
        let lab = try Lab()
        let error = #expect(throws: KernelError.self) {
            try lab.a.run { () throws(KernelError) in _ = try SourceHandover(lab.spec, lab.attachment("a")) }
        }
        #expect(error?.errno == .noEntry)
        #expect(error?.operation.contains(lab.attachment("a").port) == true)
        let spanning = try NetworkNamespace.create()
        let route = try NetlinkSocket(in: spanning)
        try route.createBridge("br", spanningTree: true)
        #expect(try route.link("br").hasSpanningTree)
        #expect(try !NetlinkSocket(in: lab.a).link("br").hasSpanningTree)
        var wrong = lab.attachment("a")
        wrong.bridge = "none"
        #expect(throws: KernelError.self) {
            try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, wrong) }
        }
        #expect(lab.files.isEmpty)
    }
}

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(1))) struct TCPDrainTests {
    @Test func namesWhatNoDescriptorLeadsTo() throws {
        let lab = try Lab()
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment("a")) }
        let box = try lab.container("a")
        let listener = try Sockets.listen(box, 80)
        #expect(try TCPDrain.pending(namespace: box).isEmpty)
        let client = try Sockets.connect(lab.ue, lab.address, 80)
        #expect(Sockets.readable(listener, within: 1000))
        let waiting = try TCPDrain.pending(namespace: box)
        #expect(waiting.unaccepted.count == 1)
        #expect(waiting.reasons.first?.contains("10.77.0.2:80") == true)
        let server = accept(listener, nil, nil)
        #expect(try TCPDrain.pending(namespace: box).isEmpty)
        // Closed with more to say than the client takes: the tail has no descriptor.
        _ = Pattern.fill(server)
        close(server)
        #expect(try TCPDrain.pending(namespace: box).closing.count == 1)
        close(client)
        close(listener)
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment("a")) }
    }
}

// UDP sockets moved between two hosts with datagrams in their queues, while others are on their way.
import CLinux
import Containers
import Foundation
import LinuxKernel
import NetworkTestSupport
import Testing

@testable import Engine

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(1))) struct UDPTests {
    let lab: Lab
    let client: Int32, client6: Int32

    init() throws {
        let lab = try Lab(ipv6: true)
        self.lab = lab
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment("a")) }
        for namespace in [lab.a, try lab.container("a")] { try lab.steer(namespace) }
        client = try Peer.socket(lab.ue, AF_INET)
        client6 = try Peer.socket(lab.ue, AF_INET6)
    }
    private func socket(_ family: Int32 = AF_INET) throws -> Int32 { try Peer.socket(lab.container("a"), family) }

    /// Nobody was told that a port is closed, and nothing is left of the move.
    private func expectClean(_ mover: Mover, _ fds: [Int32]) throws {
        for host in ["a", "b"] {
            #expect(try Lab.counter(try lab.container(host), "Icmp", "OutDestUnreachs") == 0, "\(host)")
            #expect(try Lab.counter(try lab.container(host), "Udp", "NoPorts") == 0, "\(host)")
            #expect(try Lab.counter(try lab.container(host), "Udp", "RcvbufErrors") == 0, "\(host)")
        }
        try mover.finish()
        for fd in fds + [client, client6] { close(fd) }
        try mover.removeAll()
        #expect(lab.files.isEmpty)
    }
    private func remove(_ fds: [Int32]) throws {
        for fd in fds + [client, client6] { close(fd) }
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment("a")) }
    }

    /// Datagrams of all sizes from two senders and from the container itself, then some that come in the blackout: all
    /// of them, once, in order, with their senders, contents and what else the program asks for.
    @Test(arguments: [AF_INET, AF_INET6]) func queueArrives(_ family: Int32) throws {
        let server = try socket(family), own = try socket(family), second = try Peer.socket(lab.ue, family)
        let ip = Int32(IPPROTO_IP), ip6 = Int32(IPPROTO_IPV6)
        for name: Int32 in [8, 12, 13] { Sockets.set(server, ip, name, 1) }  // IP_PKTINFO, IP_RECVTTL, IP_RECVTOS
        // IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, IPV6_FLOWINFO
        if family == AF_INET6 { for name: Int32 in [49, 51, 66, 11] { Sockets.set(server, ip6, name, 1) } }
        Sockets.set(server, SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        try Peer.bind(server, family == AF_INET ? "0.0.0.0" : "::", 5000)
        let first = family == AF_INET ? client : client6, host = family == AF_INET ? lab.address : "fd77::2"
        Sockets.set(second, ip, IP_TTL, 7)
        Sockets.set(second, ip, IP_TOS, 0x28)
        var sent: [Int32: [Data]] = [:], count = 0
        func send(_ fd: Int32, _ size: Int, to host: String) throws {
            let bytes = Pattern.bytes(count * 1000..<count * 1000 + size)
            try Peer.send(fd, host, 5000, bytes)
            sent[fd, default: []].append(Data(bytes))
            count += 1
        }
        // While a neighbour is looked for, datagrams wait, and the next one may overtake them.
        for (fd, host) in [(first, host), (second, host), (own, host), (client, lab.address)] {
            guard fd != client || family == AF_INET6 else { continue }
            try Peer.send(fd, host, 5000, [0])
            #expect(try Peer.receive(server).content == [0])
        }
        for size in [0, 1, 100, 1400, 1472, 1473, 0, 9000, 65000] {
            try send(first, size, to: host)
            try send(second, min(size, 20_000), to: host)
            try send(own, size, to: family == AF_INET ? "127.0.0.1" : "::1")
            try send(own, size, to: host)
            if family == AF_INET6 { try send(client, size, to: lab.address) }
        }
        // Empty ones are among them, so the queue can be looked at once only.
        usleep(200_000)
        let mover = try Mover(lab)
        var before = DatagramQueue()
        let moved = try mover.moveDatagrams(
            [server], queue: { before = $0 },
            blackout: { for size in [10, 2000, 0] { try send(first, size, to: host) } })
        // Senders may overtake each other between processors; none overtakes itself.
        let waited = before.datagrams.count
        #expect(waited == count - 3)
        for (fd, contents) in sent {
            let port = UDPAddress(try UDPSocket.address(fd, peer: false)).port
            let found = before.datagrams.filter { UDPAddress($0.source).port == port }.map(\.content)
            #expect(found == Array(contents.prefix(found.count)))
            #expect(found.count == contents.count - (fd == first ? 3 : 0))
        }
        #expect(before.datagrams.contains { $0.ttl == 7 && $0.trafficClass == 0x28 } == (family == AF_INET))
        usleep(200_000)
        let after = try UDPSocket.captureQueue(moved[0])
        #expect(after.datagrams.count == count)
        #expect(after.datagrams.prefix(waited) == before.datagrams[...])
        #expect(after.datagrams.dropFirst(waited).map(\.content) == sent[first]!.suffix(3))
        for datagram in after.datagrams {
            let (from, content) = try Peer.receive(moved[0])
            #expect(Data(content) == datagram.content)
            #expect(from == datagram.source)
        }
        #expect(!Sockets.readable(moved[0], within: 0))
        // The other way as well, and to itself.
        try Peer.send(first, host, 5000, [1])
        let question = try Peer.receive(moved[0])
        try Peer.answer(moved[0], question.from, [2])
        #expect(try Peer.receive(first).content == [2])
        print("\(waited) datagrams, µs: \(mover.times.map { "\($0.0) \($0.1 / 1000)" })")
        try expectClean(mover, [server, own, second] + moved)
    }

    /// A server that has a socket of its own for a peer, on the same port: each keeps what it has, and what the peer
    /// sends then goes on to the second.
    @Test func socketsOfOnePortKeepTheirOwn() throws {
        let server = try socket(), own = try socket()
        for fd in [server, own] {
            Sockets.set(fd, SOL_SOCKET, SO_REUSEADDR, 1)
            try Peer.bind(fd, "10.77.0.2", 5000)
        }
        let other = try Peer.socket(lab.ue, AF_INET)
        // While a neighbour is looked for, datagrams wait, and the next one may overtake them.
        for fd in [other, client] {
            try Peer.send(fd, lab.address, 5000, [9])
            #expect(try Peer.receive(own).content == [9])
        }
        func holds(_ fd: Int32, _ count: Int) throws -> Bool {
            try waitUntil { try UDPSocket.captureQueue(fd).datagrams.count == count }
        }
        // The younger one gets it; its peer is another one then.
        try Peer.send(other, lab.address, 5000, [0])
        #expect(try holds(own, 1))
        try Peer.send(client, lab.address, 5000, [1])
        #expect(try holds(own, 2))
        try Peer.connect(own, Peer.address(client, "10.77.0.9"))
        try Peer.send(client, lab.address, 5000, [2])
        try Peer.send(other, lab.address, 5000, [3])
        #expect(try holds(own, 3))
        #expect(try holds(server, 1))
        let counts = try [server, own].map { try UDPSocket.captureQueue($0).datagrams.map { $0.content.first! } }
        #expect(counts == [[3], [0, 1, 2]])
        Sockets.set(own, SOL_SOCKET, SO_REUSEADDR, 0)
        let mover = try Mover(lab)
        let moved = try mover.moveDatagrams(
            [own, server],
            blackout: {
                try Peer.send(client, lab.address, 5000, [4])
                try Peer.send(other, lab.address, 5000, [5])
            })
        usleep(5000)
        for byte: UInt8 in [0, 1, 2, 4] { #expect(try Peer.receive(moved[0]).content == [byte]) }
        for byte: UInt8 in [3, 5] { #expect(try Peer.receive(moved[1]).content == [byte]) }
        #expect(Sockets.get(moved[0], SOL_SOCKET, SO_REUSEADDR) == 0)
        #expect(Sockets.get(moved[1], SOL_SOCKET, SO_REUSEADDR) == 1)
        #expect(Sockets.get(moved[1], SOL_SOCKET, 62) == 0)  // SO_BINDTOIFINDEX
        try expectClean(mover, [server, own, other] + moved)
    }

    /// A socket without an address stays so; one whose port the kernel chose keeps it; a device and joined datagrams.
    @Test func everyStateArrives() throws {
        let fresh = try socket(), chosen = try socket(AF_INET6), joined = try socket()
        try Peer.send(chosen, "fd77::9", 9, [1])
        Sockets.set(joined, Int32(IPPROTO_UDP), UDPSocket.UDP_GRO, 1)
        Peer.setDevice(joined, "eth0")
        try Peer.bind(joined, "0.0.0.0", 6000)
        // Sent as one to the container, they are joined again only where they come over its loopback.
        let own = try socket()
        let loop = try socket()
        Sockets.set(loop, Int32(IPPROTO_UDP), UDPSocket.UDP_GRO, 1)
        try Peer.bind(loop, "127.0.0.1", 6001)
        Sockets.set(own, Int32(IPPROTO_UDP), 103, 500)  // UDP_SEGMENT
        try Peer.send(own, "127.0.0.1", 6001, Pattern.bytes(0..<1700))
        try Peer.send(client, lab.address, 6000, [7])
        for fd in [loop, joined] { #expect(Sockets.readable(fd, within: 2000)) }
        #expect(try UDPSocket.captureQueue(loop).datagrams.first?.segment == 500)
        let mover = try Mover(lab)
        let moved = try mover.moveDatagrams([fresh, chosen, joined, loop])
        #expect(try UDPAddress(UDPSocket.address(moved[0], peer: false)).port == 0)
        #expect(try UDPSocket.address(moved[1], peer: false) == UDPSocket.address(chosen, peer: false))
        #expect(try Peer.receive(moved[2]).content == [7])
        #expect(try UDPSocket.capture(moved[2]).options == UDPSocket.capture(joined).options)
        var parts: [UInt8] = []
        while parts.count < 1700 {
            let part = try Peer.receive(moved[3]).content
            #expect(part.count == 500 || part.count == 200)
            parts += part
        }
        #expect(parts == Pattern.bytes(0..<1700))
        try expectClean(mover, [fresh, chosen, joined, own, loop] + moved)
    }

    @Test(arguments: [AF_INET, AF_INET6]) func optionsArrive(_ family: Int32) throws {
        let server = try socket(family), ip = Int32(IPPROTO_IP), ip6 = Int32(IPPROTO_IPV6)
        var values: [(Int32, Int32, Int32)] = [
            (SOL_SOCKET, SO_BROADCAST, 1), (SOL_SOCKET, SO_PRIORITY, 5), (SOL_SOCKET, SO_MARK, 9),
            (SOL_SOCKET, SO_TIMESTAMPNS, 1), (SOL_SOCKET, 40, 1), (SOL_SOCKET, SO_REUSEADDR, 1),
            (ip, IP_TTL, 33), (ip, IP_PKTINFO, 1), (ip, IP_RECVTTL, 1), (ip, IP_RECVTOS, 1), (ip, IP_RECVERR, 1),
            (ip, IP_MULTICAST_TTL, 4), (ip, IP_MULTICAST_LOOP, 0), (ip, IP_MULTICAST_ALL, 0),
            (Int32(IPPROTO_UDP), 103, 1200), (Int32(IPPROTO_UDP), 104, 1), (Int32(IPPROTO_UDP), 1, 1),
        ]
        if family == AF_INET {
            values.insert((ip, IP_TOS, 0x10), at: 0)  // sets a priority too
        } else {
            values += [
                (ip6, IPV6_V6ONLY, 1), (ip6, IPV6_RECVPKTINFO, 1), (ip6, IPV6_UNICAST_HOPS, 12), (ip6, IPV6_TCLASS, 16),
                (ip6, IPV6_MULTICAST_HOPS, 3), (ip6, 62, 1), (ip6, 70, 0),
            ]
        }
        for (level, name, value) in values { #expect(Sockets.set(server, level, name, value) == 0, "\(level)/\(name)") }
        Sockets.set(server, SOL_SOCKET, SO_RCVBUF, 200_000)
        var timeout = timeval(tv_sec: 3, tv_usec: 500_000)
        setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &timeout, 16)
        try Peer.bind(server, family == AF_INET ? "10.77.0.2" : "fd77::2", 5000)
        let before = try UDPSocket.capture(server)
        let mover = try Mover(lab)
        let moved = try mover.moveDatagrams([server])
        for (level, name, value) in values { #expect(Sockets.get(moved[0], level, name) == value, "\(level)/\(name)") }
        let after = try UDPSocket.capture(moved[0])
        #expect(after == before)
        #expect(after.options.bufferLock == 2)  // SOCK_RCVBUF_LOCK
        try expectClean(mover, [server] + moved)
    }

    /// A capture given up, and one whose engine died in the middle: the program reads all of it.
    @Test func rollsBackAtTheSource() throws {
        let server = try socket()
        try Peer.bind(server, "0.0.0.0", 5000)
        // The empty one comes first: behind others a second look passes over it (docs/compatibility.md).
        try Peer.send(client, lab.address, 5000, [])
        #expect(Sockets.readable(server, within: 2000))
        for byte: UInt8 in 1..<50 { try Peer.send(client, lab.address, 5000, [byte]) }
        _ = try waitUntil { try UDPSocket.captureQueue(server).datagrams.count == 50 }
        // Frames may overtake each other on their way here, so what was captured tells the order.
        let queue = try UDPSocket.captureQueue(server).datagrams.map(\.content)
        #expect(Set(queue) == Set((0..<50).map { (byte: UInt8) in Data(byte == 0 ? [] : [byte]) }) && queue.count == 50)
        #expect(Sockets.get(server, SOL_SOCKET, SO_PEEK_OFF) == -1)
        #expect(try UDPSocket.captureQueue(server).datagrams.count == 50)
        try UDPSocket.set(server, SOL_SOCKET, SO_PEEK_OFF, 17)
        try UDPSocket.endPeeks(pid: getpid())
        #expect(Sockets.get(server, SOL_SOCKET, SO_PEEK_OFF) == -1)
        for content in queue { #expect(try Data(Peer.receive(server).content) == content) }
        try remove([server])
    }

    @Test func refusesByName() throws {
        let box = try lab.container("a")
        func words(_ family: Int32 = AF_INET, _ make: (Int32) throws -> Void) throws -> String? {
            let fd = try socket(family)
            defer { close(fd) }
            try make(fd)
            return try box.run { () throws(KernelError) in UDPSocket.obstacle(fd, pid: clx_gettid()) }
        }
        #expect(try words { _ in } == nil)
        #expect(try words { Sockets.set($0, SOL_SOCKET, SO_PEEK_OFF, 0) } == "UDP socket with SO_PEEK_OFF")
        #expect(try words { Peer.attachFilter($0) } == "UDP socket with socket filter")
        #expect(try words { Sockets.set($0, Int32(IPPROTO_UDP), 100, 2) } == "UDP socket with UDP_ENCAP")
        for family in [AF_INET, AF_INET6] {
            #expect(
                try words(family) {
                    let peer = family == AF_INET ? (client, "10.77.0.9") : (client6, "fd77::9")
                    try Peer.connect($0, Peer.address(peer.0, peer.1))
                    var byte: UInt8 = 1
                    send($0, &byte, 1, Int32(MSG_MORE))
                } == "UDP socket with a datagram begun (UDP_CORK, MSG_MORE)")
        }
        #expect(
            try words {
                try Peer.connect($0, Peer.address("10.77.0.9", 9))
                var byte: UInt8 = 1
                send($0, &byte, 1, 0)
                var entry = pollfd(fd: $0, events: 0, revents: 0)
                _ = poll(&entry, 1, 2000)
            } == "UDP socket with an error pending")
        #expect(
            try words {
                try Peer.connect($0, Peer.address("10.77.0.9", 9))
                shutdown($0, Int32(SHUT_RD))
            } == "UDP socket that is shut down, not carried yet")
        #expect(
            try words { fd in
                Sockets.set(fd, Int32(IPPROTO_IP), 50, Int32(bitPattern: UInt32(2).bigEndian))
            } == "UDP socket with IP_UNICAST_IF, not carried yet")
        // struct ip_mreqn: group, address, interface.
        #expect(
            try words { fd in
                Sockets.set(fd, SOL_SOCKET, SO_REUSEADDR, 1)
                try UDPSocket.apply(Data([239, 1, 2, 3, 10, 77, 0, 2]), "join") { address, size in
                    setsockopt(fd, Int32(IPPROTO_IP), IP_ADD_MEMBERSHIP, address, size)
                }
            } == "UDP socket in multicast group 239.1.2.3, not carried yet")
        // struct ipv6_mreq: group, interface (0: any that has a route).
        #expect(
            try words(AF_INET6) { fd in
                let group = IPAddress("ff15::7")!.bytes + [0, 0, 0, 0]
                _ = setsockopt(fd, Int32(IPPROTO_IPV6), 20, group, 20)
            } == "UDP socket in multicast group ff15::7, not carried yet")
        let pair = try [socket(), socket()]
        for fd in pair {
            Sockets.set(fd, SOL_SOCKET, SO_REUSEPORT, 1)
            try Peer.bind(fd, "0.0.0.0", 5001)
        }
        let own = try SourceProcess(pid: getpid(), undo: NoUndoLog()).pidfd
        var census = DescriptorCensus()
        for fd in pair { try census.note(DescriptorProbe(fd, of: getpid(), own), DescriptorContext()) }
        #expect(census.obstacles.first?.reason.contains("shares port 5001 with fd \(pair[1])") == true)
        try remove(pair)
    }
}

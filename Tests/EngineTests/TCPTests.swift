// TCP sockets moved between two hosts while their clients go on.
import Containers
import Foundation
import LinuxKernel
import NetworkTestSupport
import Testing

@testable import Engine

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(1))) struct TCPTests {
    let lab: Lab
    let listener: Int32

    init() throws {
        let lab = try Lab()
        self.lab = lab
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.attach(lab.spec, lab.attachment("a")) }
        listener = try Sockets.listen(try lab.container("a"), 80)
    }
    private func pair() throws -> (client: Int32, server: Int32) {
        try Sockets.pair(lab.ue, listener, lab.address, 80)
    }
    /// No reset left either container, and nothing is left of the move.
    ///
    /// - Parameter hosts: where resets count.
    private func expectClean(_ mover: Mover, _ fds: [Int32], resetsOn hosts: [String] = ["a", "b"]) throws {
        for host in hosts {
            #expect(try Lab.counter(try lab.container(host), "Tcp", "OutRsts") == 0, "resets by \(host)")
        }
        try mover.finish()
        for fd in fds + [listener] { close(fd) }
        try mover.removeAll()
        #expect(lab.files.isEmpty)
    }
    private func report(_ what: String, _ mover: Mover) {
        let text = mover.times.map { "\($0.0) \($0.1 / 1000)" }.joined(separator: ", ")
        print("\(what), µs: \(text)")
    }

    /// Clients that ask and wait, during a blackout of 20 ms: no timeout, no reset, no byte wrong.
    @Test func askingClientsNoticeNothing() throws {
        let pairs = try (0..<4).map { _ in try pair() }
        let clients = pairs.map { EchoClient($0.client) }
        let server = EchoServer(pairs.map(\.server))
        let mover = try Mover(lab)
        usleep(50_000)
        let newListener = try Sockets.socket(mover.box)
        let moved = try mover.move(server.pause(), blackout: 20_000, listener: (listener, newListener))
        server.resume(moved)
        let answers = clients.map(\.answers)
        _ = waitUntil(seconds: 10) { zip(clients, answers).allSatisfy { $0.answers > $1 + 50 } }
        for client in clients { client.end() }
        server.end()
        for (client, before) in zip(clients, answers) {
            #expect(client.wrong == nil)
            #expect(client.answers > before + 50)
            // A timeout would be one of a second, the restored socket's first.
            #expect(client.largestGap < 900_000_000, "\(client.largestGap / 1000) µs")
            #expect(Sockets.retransmits(client.fd) == 0)
        }
        for namespace in [lab.ue, mover.box] {
            #expect(try Lab.counter(namespace, "TcpExt", "TCPTimeouts") == 0)
        }
        report("four asking clients, gap \(clients.map { $0.largestGap / 1000 }.max()!)", mover)
        // The listener has moved too.
        let late = try Sockets.connect(lab.ue, lab.address, 80)
        #expect(Sockets.readable(newListener, within: 1000))
        try expectClean(mover, pairs.map(\.client) + moved + [late, newListener])
    }

    /// Clients that stream in both directions, with as much under way as fits.
    @Test(arguments: ["reno", "bbr"]) func streamingClientsLoseNothing(_ congestion: String) throws {
        guard try SmallFile.text("/proc/sys/net/ipv4/tcp_available_congestion_control").contains(congestion) else {
            return
        }
        for namespace in [lab.ue, try lab.container("a")] {
            try namespace.setSysctl("net/ipv4/tcp_congestion_control", congestion)
        }
        let pairs = try (0..<2).map { _ in try pair() }
        let clients = pairs.map { EchoClient($0.client, window: 1 << 20) }
        let server = EchoServer(pairs.map(\.server))
        let mover = try Mover(lab)
        usleep(50_000)
        let moved = try mover.move(server.pause(), blackout: 20_000)
        server.resume(moved)
        usleep(200_000)
        for client in clients { client.end() }
        server.end()
        for client in clients {
            #expect(client.wrong == nil)
            // BBR makes pauses of its own; a timeout would be one of a second, the restored socket's first.
            #expect(client.largestGap < 900_000_000, "\(client.largestGap / 1000) µs")
        }
        report("two \(congestion) streams, gap \(clients.map { $0.largestGap / 1000 }.max()!)", mover)
        for namespace in [lab.ue, mover.box] {
            #expect(try Lab.counter(namespace, "TcpExt", "TCPTimeouts") == 0)
            #expect(try Lab.counter(namespace, "TcpExt", "PAWSEstab") == 0)
        }
        try expectClean(mover, pairs.map(\.client) + moved)
    }

    /// Queues as full as they get, in both directions, with data that was never sent.
    @Test func fullQueuesArrive() throws {
        let (client, server) = try pair()
        for fd in [client, server] {
            Sockets.set(fd, SOL_SOCKET, SO_SNDBUF, 4 << 20)
        }
        let up = Pattern.fill(client), down = Pattern.fill(server)
        usleep(50_000)
        let upMore = Pattern.fill(client, from: up), downMore = Pattern.fill(server, from: down)
        let mover = try Mover(lab)
        let moved = try mover.move([server])
        report("full queues of \(down + downMore) and \(up + upMore) bytes", mover)
        #expect(Sockets.get(moved[0], SOL_SOCKET, SO_SNDBUF) == Sockets.get(client, SOL_SOCKET, SO_SNDBUF))
        #expect(Pattern.check(client, count: down + downMore) == nil)
        #expect(Pattern.check(moved[0], count: up + upMore) == nil)
        #expect(Pattern.fill(moved[0], from: 7, most: 100) == 100)
        #expect(Pattern.check(client, from: 7, count: 100) == nil)
        try expectClean(mover, [client] + moved)
    }

    /// A capture given up: the source goes on where it was.
    @Test func rollsBackAtTheSource() throws {
        let (clientFD, serverFD) = try pair()
        Sockets.set(serverFD, SOL_SOCKET, SO_REUSEADDR, 0)
        let client = EchoClient(clientFD), server = EchoServer([serverFD])
        let mover = try Mover(lab)
        usleep(20_000)
        let fds = server.pause()
        try mover.destination.accept()
        try mover.source.redirect()
        let repair = try TCPSocket.beginRepair(fds[0])
        _ = try TCPSocket.captureConnection(fds[0], repair)
        try mover.source.silence()
        usleep(20_000)
        try lab.b.run { () throws(KernelError) in try mover.destination.abort() }
        try TCPSocket.endRepair(fds[0], repair)
        try mover.source.record.rollback(in: lab.a)
        server.resume(fds)
        usleep(500_000)  // what was held at b is lost: one timeout
        client.end()
        server.end()
        #expect(client.wrong == nil)
        #expect(client.answers > 100)
        #expect(Sockets.get(serverFD, SOL_SOCKET, SO_REUSEADDR) == 0)
        #expect(try Lab.counter(try lab.container("a"), "Tcp", "OutRsts") == 0)
        for fd in [clientFD, serverFD, listener] { close(fd) }
        try mover.removeAll()
        #expect(lab.files.isEmpty)
    }

    /// The peer has closed its side; the program has not read all of it yet.
    @Test func closeWaitArrives() throws {
        let (client, server) = try pair()
        #expect(Pattern.fill(client, most: 1000) == 1000)
        shutdown(client, Int32(SHUT_WR))
        #expect(try waitUntil { try TCPSocket.info(server).state == TCPState.closeWait.rawValue })
        let mover = try Mover(lab)
        let moved = try mover.move([server])
        report("CLOSE_WAIT", mover)
        #expect(try TCPSocket.info(moved[0]).state == TCPState.closeWait.rawValue)
        #expect(Pattern.check(moved[0], count: 1000) == nil)
        try #require(Sockets.readable(moved[0], within: 100))
        var byte: UInt8 = 0
        #expect(recv(moved[0], &byte, 1, 0) == 0)
        #expect(Pattern.fill(moved[0], most: 5000) == 5000)
        close(moved[0])
        #expect(Pattern.check(client, count: 5000) == nil)
        try #require(Sockets.readable(client, within: 1000))
        #expect(recv(client, &byte, 1, 0) == 0)
        try expectClean(mover, [client])
    }

    /// Both ends of a connection are in the container: one says its first word when the other is there.
    @Test(arguments: [1, 150]) func connectionsOfTheContainerWithItselfArrive(_ count: Int) throws {
        let inside = try lab.container("a")
        let pairs = try (0..<2 * count).map {
            try Sockets.pair(inside, listener, $0 < count ? "127.0.0.1" : lab.address, 80)
        }
        // A third is idle; a third has data in both queues, not all of it sent; a third is full.
        var sent = [[Int]](repeating: [0, 0], count: pairs.count)
        for (index, pair) in pairs.enumerated() where index % 3 > 0 || count == 1 {
            for (way, fd) in [pair.client, pair.server].enumerated() {
                // Many are full with less.
                if count > 1 { for name in [SO_SNDBUF, SO_RCVBUF] { Sockets.set(fd, SOL_SOCKET, name, 20_000) } }
                sent[index][way] = Pattern.fill(fd, most: index % 3 == 1 ? 100_000 : 1 << 40)
            }
        }
        let mover = try Mover(lab)
        let fresh = try Sockets.socket(mover.box)
        let moved = try mover.move(pairs.flatMap { [$0.client, $0.server] }, listener: (listener, fresh))
        report("\(2 * count) pairs", mover)
        for index in pairs.indices {
            let (client, server) = (moved[2 * index], moved[2 * index + 1])
            #expect(Pattern.check(server, count: sent[index][0]) == nil, "pair \(index)")
            #expect(Pattern.check(client, count: sent[index][1]) == nil, "pair \(index)")
            for (one, other) in [(client, server), (server, client)] {
                #expect(Pattern.fill(one, from: 7, most: 100) == 100, "pair \(index)")
                #expect(Pattern.check(other, from: 7, count: 100) == nil, "pair \(index)")
            }
        }
        // While the old ends are closed one by one, a delayed acknowledgement may find no socket: it stays within A.
        try expectClean(mover, moved + [fresh], resetsOn: ["b"])
    }

    @Test func optionsArrive() throws {
        let (client, server) = try pair()
        let tcp = Int32(IPPROTO_TCP)
        let values: [(Int32, Int32, Int32)] = [
            (SOL_SOCKET, SO_KEEPALIVE, 1), (tcp, TCP_KEEPIDLE, 77), (tcp, TCP_KEEPINTVL, 7), (tcp, TCP_KEEPCNT, 3),
            (tcp, TCP_NODELAY, 1), (Int32(IPPROTO_IP), IP_TOS, 0x10), (SOL_SOCKET, SO_PRIORITY, 5),
            (Int32(IPPROTO_IP), IP_TTL, 33), (SOL_SOCKET, SO_RCVLOWAT, 2), (tcp, TCP_USER_TIMEOUT, 12345),
            (SOL_SOCKET, SO_MARK, 9), (SOL_SOCKET, SO_OOBINLINE, 1), (SOL_SOCKET, SO_REUSEADDR, 1),
            (Int32(IPPROTO_IP), 51 /* IP_LOCAL_PORT_RANGE */, 40_000 | 41_000 << 16), (tcp, TCP_WINDOW_CLAMP, 30_000),
            (SOL_SOCKET, 75 /* SO_RCVMARK */, 1), (SOL_SOCKET, SO_BROADCAST, 1),
        ]
        for (level, name, value) in values { #expect(Sockets.set(server, level, name, value) == 0) }
        Sockets.set(server, SOL_SOCKET, SO_RCVBUF, 200_000)
        var linger = Glibc.linger(l_onoff: 1, l_linger: 4)
        setsockopt(server, SOL_SOCKET, SO_LINGER, &linger, 8)
        var timeout = timeval(tv_sec: 3, tv_usec: 500_000)
        setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &timeout, 16)
        setsockopt(server, tcp, TCP_CONGESTION, "reno", 4)
        let repair = try TCPSocket.beginRepair(server)
        let before = try TCPSocket.captureOptions(
            server, family: AF_INET, listener: false, reuseAddress: repair.reuseAddress)
        try TCPSocket.endRepair(server, repair)
        #expect(repair.reuseAddress)
        Sockets.set(listener, tcp, TCP_MAXSEG, 1000)
        let mover = try Mover(lab)
        let fresh = try Sockets.socket(mover.box)
        let moved = try mover.move([server], listener: (listener, fresh))
        #expect(Sockets.get(fresh, tcp, TCP_MAXSEG) == 1000)
        for (level, name, value) in values { #expect(Sockets.get(moved[0], level, name) == value, "\(level)/\(name)") }
        let after = try TCPSocket.captureOptions(moved[0], family: AF_INET, listener: false, reuseAddress: true)
        #expect(after == before)
        try expectClean(mover, [client, fresh] + moved)
    }

    @Test func refusesByName() throws {
        let (client, server) = try pair()
        #expect(TCPSocket.obstacle(server) == nil)
        #expect(TCPSocket.obstacle(listener) == nil)
        let udp = try Sockets.bindUDP(lab.ue, 99)
        #expect(TCPSocket.obstacle(udp) == "protocol 17, not TCP")
        let idle = try Sockets.socket(lab.ue)
        #expect(TCPSocket.obstacle(idle)?.contains("neither connected nor listening") == true)
        var byte: UInt8 = 1
        send(client, &byte, 1, Int32(MSG_OOB))
        _ = waitUntil { TCPSocket.obstacle(server) != nil }
        #expect(TCPSocket.obstacle(server) == "TCP urgent data")
        let (client2, server2) = try pair()
        shutdown(server2, Int32(SHUT_WR))
        #expect(TCPSocket.obstacle(server2)?.contains("finWait") == true)
        let waiting = try Sockets.connect(lab.ue, lab.address, 80)
        #expect(Sockets.readable(listener, within: 1000))
        #expect(try TCPSocket.pendingAccepts(listener) == 1)
        #expect(throws: KernelError.self) { try TCPSocket.captureListener(server) }
        for fd in [client, server, udp, idle, client2, server2, waiting, listener] { close(fd) }
        try lab.a.run { () throws(KernelError) in try ContainerNetwork.detach(lab.spec, lab.attachment("a")) }
    }
}

extension SourceHandoverRecord {
    func rollback(in namespace: NetworkNamespace) throws(KernelError) {
        try namespace.run { () throws(KernelError) in try rollback() }
    }
}

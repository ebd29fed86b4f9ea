// A server of datagrams, moved under a client that numbers them: none lost, none repeated, in order.
import Agent
import Containers
import Foundation
import Glibc
import LinuxKernel
import Migration
import Synchronization
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(5)))
struct DatagramTests {
    /// Runs an echoer on host a, whose datagrams wait for `rest` milliseconds.
    private func run(_ hosts: FaultHosts, rest: Int) async throws {
        try await hosts.run("echoer", ["5000", "\(rest)"], hasNetwork: true)
    }

    private func withHosts(_ name: String, _ body: (FaultHosts, NetworkNamespace) async throws -> Void) async throws {
        let testbed = try TestbedHosts(name)
        defer { testbed.tearDown() }
        let hosts = testbed.hosts
        try await body(hosts, NetworkNamespace(opening: testbed.topology.userDevice.path))
    }

    @Test(arguments: Technique.allCases) func everyDatagramArrivesOnce(_ technique: Technique) async throws {
        try await withHosts("dt") { hosts, user in
            try await hosts.a.start()
            try await hosts.b.start()
            try await run(hosts, rest: 20)
            let clients = try (0..<3).map { try NumberingClient(user, FaultHosts.address, UInt16(5000 + $0)) }
            usleep(300_000)
            var moves: [ClosedRange<Int64>] = []
            for (from, to) in [(hosts.a, hosts.b), (hosts.b, hosts.a)] {
                let begin = monotonicNow()
                _ = try await from.client.migrate(
                    hosts.container, to: to.name, plan: MigrationPlan(technique: technique))
                try await wait(seconds: 20) { (try? hosts.place()) === to && hosts.mistakes().isEmpty }
                #expect(hosts.mistakes() == [], "\(from.words)\n\(to.words)")
                usleep(200_000)
                moves.append(begin...monotonicNow())
            }
            for client in clients {
                let (sent, answers) = client.end()
                #expect(sent.count > 500)
                let difference = Self.difference(sent.count, answers)
                #expect(answers.sorted() == Array(0..<sent.count), "\(technique), port \(client.port): \(difference)")
                // At a handover the container's frames go to another host. On a busy machine a frame that still went to
                // the old host may arrive after frames that went to the new one.
                let overtaken = zip(answers, answers.dropFirst()).filter { $0 >= $1 }.map { sent[$0.1] }
                let isOrdered =
                    overtaken.count <= moves.count
                    && overtaken.allSatisfy { at in
                        moves.contains { $0.contains(at) }
                    }
                #expect(isOrdered, "\(technique), port \(client.port): \(difference)")
                #expect(client.refusals == 0, "a closed port was told of")
            }
            #expect(!hosts.log(hosts.a).contains("echoer:"), "\(hosts.log(hosts.a))")
        }
    }

    /// The migration ends by an agent's death in the middle of the freeze: what waited at the source is answered there.
    @Test(arguments: [FaultPoint.sourceSilenced, .sourcePromisedUnsent, .destinationPrepared])
    func nothingIsLostAtTheSource(_ point: FaultPoint) async throws {
        try await withHosts("du") { hosts, user in
            let isSource = point.rawValue < 100
            try await hosts.a.start(fault: isSource ? "\(point.rawValue)" : nil)
            try await hosts.b.start(fault: isSource ? nil : "\(point.rawValue)")
            try await run(hosts, rest: 400)
            let clients = try (0..<3).map {
                try NumberingClient(user, FaultHosts.address, UInt16(5000 + $0), spacing: 5)
            }
            usleep(500_000)
            _ = try await hosts.a.client.migrate(
                hosts.container, to: hosts.b.name, plan: MigrationPlan(technique: .preCopy))
            try await wait(seconds: 10) { !hosts.hits().isEmpty }
            let hit = try #require(hosts.hits().first)
            try await wait(seconds: 10) { hosts.mistakes().isEmpty }
            #expect(hosts.mistakes() == [])
            #expect(try hosts.place() === hosts.a)
            try await wait(seconds: 20) { clients.allSatisfy { $0.isAnswered(since: hit.at) } }
            usleep(500_000)
            for client in clients {
                let (sent, answers) = client.end()
                let lost = Set(sent.indices).subtracting(answers)
                // What was on its way to the other host is lost or late, as in a network; what had come here is
                // neither.
                let margin: Int64 = 100_000_000
                let early = lost.filter { sent[$0] < hit.at - margin }
                #expect(early.isEmpty, "\(point): \(early.sorted())")
                let calm = answers.filter { sent[$0] < hit.at - margin || sent[$0] > hit.at + 20 * margin }
                #expect(zip(calm, calm.dropFirst()).allSatisfy(<), "\(point): \(Self.disorder(calm))")
                #expect(Set(answers).count == answers.count)
                print("\(point), port \(client.port): \(lost.count) of \(sent.count) lost at the other host")
            }
        }
    }

    private static func difference(_ sent: Int, _ answers: [Int]) -> String {
        let lost = Set(0..<sent).subtracting(answers).sorted()
        return "\(sent) sent, \(answers.count) answers, lost \(lost.prefix(20)), "
            + "\(answers.count - Set(answers).count) repeated, out of order \(disorder(answers))"
    }
    private static func disorder(_ answers: [Int]) -> [String] {
        zip(answers, answers.dropFirst()).filter { $0 >= $1 }.prefix(20).map { "\($0.1) after \($0.0)" }
    }
}

/// Sends numbered datagrams every few milliseconds, now and then many at once, and notes the answers.
private final class NumberingClient: Sendable {
    let port: UInt16
    private let fd: FileDescriptor
    private let sent = Mutex<[Int64]>([]), answers = Mutex<[Int]>([])
    private let refused = Mutex(0), over = Mutex(false)
    private let thread = Mutex<OwnThread?>(nil)
    var refusals: Int { refused.withLock { $0 } }

    init(_ namespace: NetworkNamespace, _ address: String, _ port: UInt16, spacing: Int64 = 1) throws {
        self.port = port
        fd = FileDescriptor(
            owning: try namespace.run { () throws(KernelError) in
                try checkC(socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0), "socket")
            })
        var target = sockaddr_in()
        target.sin_family = sa_family_t(AF_INET)
        target.sin_port = port.bigEndian
        inet_pton(AF_INET, address, &target.sin_addr)
        // Connected, so that a closed port is told of.
        let result = withUnsafePointer(to: &target) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(fd.number, $0, 16) }
        }
        try checkC(result, "connect")
        var room: Int32 = 4 << 20
        setsockopt(fd.number, SOL_SOCKET, SO_RCVBUFFORCE, &room, 4)
        try warmUp()
        let running = try OwnThread("datagrams") { [self] in run(spacing * 1_000_000) }
        thread.withLock { $0 = running }
    }

    /// While its neighbour's address is asked for, later datagrams may overtake the first.
    private func warmUp() throws {
        for _ in 0..<100 {
            _ = Glibc.send(fd.number, [0], 1, 0)
            var entry = pollfd(fd: fd.number, events: Int16(POLLIN), revents: 0)
            var byte: UInt8 = 0
            if poll(&entry, 1, 1000) > 0, recv(fd.number, &byte, 1, Int32(MSG_DONTWAIT)) == 1 { return }
        }
        throw Wrong("no answer from port \(port)")
    }

    /// Has anything that was sent after this instant been answered?
    func isAnswered(since instant: Int64) -> Bool {
        guard let first = sent.withLock({ $0.firstIndex { $0 > instant } }) else { return false }
        return answers.withLock { $0.last ?? -1 } >= first
    }

    /// Stops sending, and waits for what is still on its way.
    func end() -> (sent: [Int64], answers: [Int]) {
        over.withLock { $0 = true }
        thread.withLock { $0 }?.join()
        return (sent.withLock { $0 }, answers.withLock { $0 })
    }

    private func run(_ spacing: Int64) {
        var next = monotonicNow(), number = 0, last: Int64 = 0, settled = 0, progress = next
        while true {
            let now = monotonicNow(), isOver = over.withLock { $0 }
            if isOver, last == 0 { last = now }
            if last != 0, now > last + 1_500_000_000 || answers.withLock({ $0.last }) == number - 1 { break }
            // So many that its queue holds them all, however long it has to wait for a processor.
            let answered = answers.withLock { ($0.last ?? -1) + 1 }
            if answered > settled {
                (settled, progress) = (answered, now)
            } else if now > progress + 1_500_000_000 {
                // Lost, all of them: an answer to what comes next says more than silence.
                (settled, progress) = (number, now)
            }
            if !isOver, now >= next, number - settled < 150 {
                for _ in 0..<(number % 100 == 99 ? 40 : 1) {
                    send(number)
                    number += 1
                }
                next = max(next + spacing, now - 5 * spacing)
            }
            var entry = pollfd(fd: fd.number, events: Int16(POLLIN), revents: 0)
            if poll(&entry, 1, 1) > 0 { receive() }
        }
    }

    private func send(_ number: Int) {
        // Sizes of one frame and of several.
        var bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: number % 50 == 7 ? 4000 : 60)
        withUnsafeBytes(of: Int64(number)) { bytes.replaceSubrange(0..<8, with: $0) }
        sent.withLock { $0.append(monotonicNow()) }
        if Glibc.send(fd.number, bytes, bytes.count, Int32(MSG_NOSIGNAL)) < 0 {
            if errno == ECONNREFUSED { refused.withLock { $0 += 1 } }
            // The error was another one's: this one was not sent yet.
            _ = Glibc.send(fd.number, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        }
    }

    private func receive() {
        var bytes = [UInt8](repeating: 0, count: 8192)
        while true {
            let count = recv(fd.number, &bytes, bytes.count, Int32(MSG_DONTWAIT))
            if count < 0, errno == ECONNREFUSED { refused.withLock { $0 += 1 } }
            guard count >= 8 else { return }
            let number = Int(bytes.withUnsafeBytes { $0.loadUnaligned(as: Int64.self) })
            let isWhole = bytes[8..<count].allSatisfy { $0 == UInt8(truncatingIfNeeded: number) }
            answers.withLock { $0.append(isWhole ? number : -1) }
        }
    }
}

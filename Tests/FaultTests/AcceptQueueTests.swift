// A server of one thread, whose queue of connections that wait to be accepted is never empty.
import Agent
import Containers
import Foundation
import Glibc
import LinuxKernel
import Migration
import Synchronization
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct AcceptQueueTests {
    private static let port: UInt16 = 4000

    /// Clients that connect, wait for the answer, close, and begin again.
    private final class Clients: Sendable {
        private let state = Mutex((answers: [Int](), failures: [String](), slowest: 0.0, running: 0, isOver: false))

        init(_ count: Int, in user: NamedNetwork) throws {
            for index in 0..<count {
                state.withLock { $0.running += 1 }
                try OwnThread.start("client-\(index)") { [self] in
                    try? user.run { while !state.withLock({ $0.isOver }) { ask() } }
                    state.withLock { $0.running -= 1 }
                }
            }
        }

        private func ask() {
            let start = monotonicNow()
            do {
                let socket = try PeerAddress("\(FaultHosts.address):\(port)")!.connect(timeLimit: .seconds(10))
                var bytes = [UInt8](repeating: 0, count: 32)
                let count = read(socket.number, &bytes, bytes.count)
                let text = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
                guard let number = Int(text.filter(\.isNumber)), count > 0 else {
                    throw Wrong("an answer of \(count) bytes: \(text)")
                }
                let took = Double(monotonicNow() - start) / 1e9
                state.withLock {
                    $0.answers.append(number)
                    $0.slowest = max($0.slowest, took)
                }
            } catch { state.withLock { $0.failures.append("\(error)") } }
        }

        var answered: Int { state.withLock { $0.answers.count } }

        func stop() -> (answers: [Int], failures: [String], slowest: Double) {
            state.withLock { $0.isOver = true }
            for _ in 0..<3000 where state.withLock({ $0.running }) > 0 { usleep(5000) }
            return state.withLock { ($0.answers, $0.failures, $0.slowest) }
        }
    }

    private func withServer(
        milliseconds: Int, clients count: Int, _ body: (FaultHosts, Clients) async throws -> Void
    ) async throws {
        let testbed = try TestbedHosts("aq")
        defer { testbed.tearDown() }
        let hosts = testbed.hosts
        try await testbed.start()
        try await hosts.run("acceptor", ["\(Self.port)", "\(milliseconds)"], hasNetwork: true)
        let clients = try Clients(count, in: testbed.topology.userDevice)
        defer { _ = clients.stop() }
        try await Task.sleep(for: .milliseconds(500))
        try await body(hosts, clients)
    }

    /// Eight clients of a server that takes 30 ms for each: seven connections wait at any time.
    @Test func aServerWhoseQueueIsNeverEmptyMovesAndEveryConnectionIsServed() async throws {
        try await withServer(milliseconds: 30, clients: 8) { hosts, clients in
            for (from, to) in [(hosts.a, hosts.b), (hosts.b, hosts.a)] {
                let id = try await from.client.migrate(
                    hosts.container, to: to.name, plan: MigrationPlan(technique: .migrror))
                let end = try await from.client.wait(for: id, every: .milliseconds(5))
                let report = try #require(end.report, "\(String(describing: end.error))")
                print("accept queue: \(report.handovers), downtime \(report.engineDowntime) ms")
                let before = clients.answered
                try await wait(seconds: 5) { clients.answered > before + 20 }
            }
            let (answers, failures, slowest) = clients.stop()
            #expect(failures == [])
            #expect(answers.count > 40 && answers.sorted() == Array(1...answers.count), "each connection once")
            // Nothing was dropped that comes again by a timeout of a second more than the hold lasts.
            #expect(slowest < 2.5, "\(slowest) s")
            print("accept queue: \(answers.count) served, slowest \(slowest) s")
            try await wait { hosts.mistakes().isEmpty }
            #expect(hosts.mistakes() == [])
        }
    }

    /// A server that takes 20 s for a connection: it is not waited for, and goes on as before.
    @Test func aServerThatDoesNotComeToItsQueueIsRefusedByTheNameOfItsListener() async throws {
        try await withServer(milliseconds: 20_000, clients: 3) { hosts, clients in
            let start = monotonicNow()
            let id = try await hosts.a.client.migrate(
                hosts.container, to: hosts.b.name, plan: MigrationPlan(technique: .migrror))
            let end = try await hosts.a.client.wait(for: id, every: .milliseconds(5))
            #expect(Double(monotonicNow() - start) / 1e9 < 8)
            #expect(end.error?.code == .refused)
            #expect(
                end.error?.message.contains(
                    "\(FaultHosts.address):\(Self.port) has 2 connections that wait to be accepted")
                    == true,
                "\(String(describing: end.error))")
            try await wait { hosts.mistakes().isEmpty }
            #expect(hosts.mistakes() == [] && hosts.a.runs(hosts.container))
            // Its clients would wait for their answers.
            for pid in hosts.a.processes(of: hosts.container) { Glibc.kill(pid, SIGKILL) }
        }
    }
}

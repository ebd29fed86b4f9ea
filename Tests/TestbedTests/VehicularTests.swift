import CLinux
import Glibc
import LinuxKernel
import Testing

@testable import Testbed

/// The roadside service and its vehicles on loopback. Each verdict is seen to fail.
@Suite(.serialized)
struct VehicularTests {
    private func failed(_ verdicts: [Verdict]) -> [String] { verdicts.filter { !$0.passed }.map(\.name) }

    /// Runs the service for a while, with a mistake or without.
    private func run(
        spoil kind: String = "none", transport: Transport = .mixed, memory: String = "1M", seconds: Double = 0.6,
        meanwhile: (ChildProcess) -> Void = { _ in }
    ) throws -> (oracle: VehicularOracle, recording: ProbeRecording) {
        let log = "/tmp/apus-vehicular-\(getpid())"
        defer { unlink(log) }
        let port = UInt16(20_000 + getpid() % 5_000)
        let server = try ChildProcess(
            ".build/workloads/vehicular",
            [
                "--memory", memory, "--vehicles", "20", "--port", "\(port)", "--datagrams", "--log", log,
                "--corrupt-kind", kind, "--corrupt-after", "150",
            ], folder: ".", diesWithParent: true)
        defer { server.stop(grace: 0) }
        // Other work on the machine must not look like the service's delay.
        _ = clx_setpriority(server.pid, -15)
        let endpoint = ServiceEndpoint(address: "127.0.0.1", port: port)
        try endpoint.waitUntilReady(seconds: 10)
        let traffic = VehicleTraffic(vehicles: 20, rate: 50, transport: transport)
        let client = try OpenLoopClient(traffic, to: endpoint, name: "vehicles")
        usleep(UInt32(seconds * 0.5e6))
        meanwhile(server)
        usleep(UInt32(seconds * 0.5e6))
        let closed = client.stop()
        let oracle = try VehicularOracle.ask(endpoint, about: traffic, closed: closed)
        return (oracle, ProbeRecording(oracle.reports.map(\.request), deadline: 20_000_000))
    }

    @Test(.timeLimit(.minutes(1)), arguments: Transport.allCases)
    func allIsWell(transport: Transport) throws {
        let (oracle, recording) = try run(transport: transport)
        #expect(failed(oracle.verdicts()) == [], "\(oracle.verdicts())")
        #expect(oracle.log.count > 400 && oracle.log.count == oracle.tracks.count)
        #expect(oracle.log.contains { $0.warning != .none } && oracle.log.contains { $0.warning == .none })
        let summary = recording.summary("all", .min, .max)
        #expect(summary.unanswered == 0 && summary.duplicated == 0)
    }

    /// Rings of 16 records: most of the reports are in the log alone.
    @Test(.timeLimit(.minutes(1))) func fullTracksLetGo() throws {
        let (oracle, _) = try run(memory: "20480")
        #expect(failed(oracle.verdicts()) == [], "\(oracle.verdicts())")
        #expect(oracle.log.count > 400 && oracle.tracks.count == 320)
    }

    @Test(
        .timeLimit(.minutes(1)),
        arguments: [
            ("lost", "no report lost after it was acknowledged"), ("stale", "no report lost after it was acknowledged"),
            ("past", "tracks exact"), ("log", "log in order, each report once"),
            ("twice", "log in order, each report once"), ("warning", "every warning right"),
        ])
    func mistakesAreNoticed(kind: String, verdict: String) throws {
        let (oracle, _) = try run(spoil: kind)
        #expect(failed(oracle.verdicts()).contains(verdict), "\(oracle.verdicts())")
        // A mistake in the content has nothing to do with the connections.
        #expect(!failed(oracle.verdicts()).contains("TCP connections never closed"))
    }

    @Test(.timeLimit(.minutes(1))) func pausesMissDeadlines() throws {
        var pause = Int64(0)...0
        let (oracle, recording) = try run(transport: .tcp, seconds: 1) { server in
            let began = monotonicNow()
            server.signal(SIGSTOP)
            usleep(100_000)
            server.signal(SIGCONT)
            pause = began...monotonicNow()
        }
        #expect(failed(oracle.verdicts()) == [], "\(oracle.verdicts())")
        // Some 80 of those due in the pause had to wait for more than 20 ms.
        let summary = recording.summary("all", .min, .max)
        let late = try #require(summary.late)
        #expect(late > 60 && late < summary.requests / 2)
        let gaps = recording.gaps(touching: pause, within: .min ... .max)
        #expect(gaps.downtime > 90)
    }

    @Test(.timeLimit(.minutes(1))) func closedConnectionsAreNoticed() throws {
        let (oracle, _) = try run(transport: .tcp)
        var spoiled = oracle
        spoiled.closed = ["the service closed the connection"]
        #expect(failed(spoiled.verdicts()) == ["TCP connections never closed"])
        spoiled = oracle
        (spoiled.reports[300].request.answered, spoiled.reports[300].order) = (0, 0)
        #expect(failed(spoiled.verdicts()) == ["TCP connections never closed"])
        // An answer by datagram may be lost: the service knows more than the vehicle then.
        spoiled.transports = spoiled.transports.map { _ in .udp }
        #expect(failed(spoiled.verdicts()) == [])
        // Over TCP nothing may be missing before a report that was kept.
        spoiled = oracle
        spoiled.log.remove(at: 100)
        #expect(failed(spoiled.verdicts()).contains("each vehicle's reports in sequence"))
    }

    /// Two vehicles that drive towards each other, and a third one that stands far away.
    @Test func warningsAreTheRules() {
        var rule = CollisionRule(vehicles: 3)
        let ms: Int64 = 1_000_000
        #expect(rule.keep(2, at: 0, x: 100_000, y: 100_000) == .none)
        #expect(rule.keep(0, at: 0, x: 0, y: 0) == .none)
        // One report tells no velocity: it stands, 100 m away.
        #expect(rule.keep(1, at: 0, x: 10_000, y: 100) == .none)
        // Vehicle 0 at 10 m/s: 1 passes within 1 m, but nearest only after 9.9 s.
        #expect(rule.keep(0, at: 100 * ms, x: 100, y: 0) == .none)
        // Both: 98 m at 20 m/s, nearest after 4.9 s.
        #expect(rule.keep(1, at: 100 * ms, x: 9_900, y: 100) == CollisionWarning(other: 0, after: 4_900))
        #expect(rule.keep(0, at: 200 * ms, x: 200, y: 0) == CollisionWarning(other: 1, after: 4_850))
    }
}

import CLinux
import Glibc
import LinuxKernel
import Testing

@testable import Testbed

/// The frame service and its device on loopback. Each verdict is seen to fail.
@Suite(.serialized)
struct ARTests {
    private func failed(_ verdicts: [Verdict]) -> [String] { verdicts.filter { !$0.passed }.map(\.name) }

    /// Runs the service for a while, with a mistake or without.
    private func run(
        spoil kind: String = "none", transport: Transport = .tcp, memory: UInt64 = 4 << 20, seconds: Double = 0.6,
        meanwhile: (ChildProcess) -> Void = { _ in }
    ) throws -> (oracle: AROracle, recording: ProbeRecording) {
        let port = UInt16(25_000 + getpid() % 5_000)
        let server = try ChildProcess(
            ".build/workloads/ar",
            [
                "--memory", "\(memory)", "--port", "\(port)", "--datagrams", "--corrupt-kind", kind,
                "--corrupt-after", "60",
            ], folder: ".", diesWithParent: true)
        defer { server.stop(grace: 0) }
        // Other work on the machine must not look like the service's delay.
        _ = clx_setpriority(server.pid, -15)
        let endpoint = ServiceEndpoint(address: "127.0.0.1", port: port)
        try endpoint.waitUntilReady(seconds: 10)
        let traffic = FrameTraffic(rate: 200, transport: transport)
        let client = try OpenLoopClient(traffic, to: endpoint, name: "ar-device")
        usleep(UInt32(seconds * 0.5e6))
        meanwhile(server)
        usleep(UInt32(seconds * 0.5e6))
        let closed = client.stop()
        let oracle = try AROracle.ask(endpoint, about: traffic, memory: memory, overlay: 16 << 10, closed: closed)
        return (oracle, ProbeRecording(oracle.frames.map(\.request), deadline: 20_000_000))
    }

    @Test(.timeLimit(.minutes(1)), arguments: [Transport.tcp, .udp])
    func allIsWell(transport: Transport) throws {
        let (oracle, recording) = try run(transport: transport)
        #expect(failed(oracle.verdicts()) == [], "\(oracle.verdicts())")
        #expect(oracle.applied.count > 80 && oracle.applied.count == oracle.frames.count)
        let summary = recording.summary("all", .min, .max)
        #expect(summary.unanswered == 0 && summary.duplicated == 0)
    }

    /// A map of 1 MiB keeps 16 key frames: the first eight are replaced by then.
    @Test(.timeLimit(.minutes(1))) func fullMapLetsGo() throws {
        let (oracle, _) = try run(memory: 1 << 20)
        #expect(failed(oracle.verdicts()) == [], "\(oracle.verdicts())")
        #expect(oracle.state.keyFrames > oracle.state.keyFrameRoom)
    }

    @Test(
        .timeLimit(.minutes(1)),
        arguments: [
            ("overlay", "every overlay right"), ("stale", "every overlay right"), ("stale", "world map exact"),
            ("point", "world map exact"), ("key-frame", "world map exact"),
            ("lost", "no pose lost after its overlay came"),
        ])
    func mistakesAreNoticed(kind: String, verdict: String) throws {
        let (oracle, _) = try run(spoil: kind)
        #expect(failed(oracle.verdicts()).contains(verdict), "\(oracle.verdicts())")
        #expect(!failed(oracle.verdicts()).contains("TCP connection never closed"))
    }

    /// What a stale map would be: all poses answered, but the map is that of an earlier time.
    @Test(.timeLimit(.minutes(1))) func staleMapIsNoticed() throws {
        let (oracle, _) = try run()
        var earlier = WorldMap(memory: oracle.memory)
        for number in oracle.applied.dropLast() {
            earlier.apply(oracle.frames[Int(number) - 1].pose, frame: number)
        }
        var spoiled = oracle
        spoiled.state.cellDigest = earlier.cellDigest
        #expect(failed(spoiled.verdicts()) == ["world map exact"])
        spoiled = oracle
        spoiled.state.digest = earlier.digest
        #expect(failed(spoiled.verdicts()) == ["no pose lost after its overlay came"])
    }

    /// Datagrams that nobody reads get lost; the service goes on with those that came, and so does the oracle.
    @Test(.timeLimit(.minutes(1))) func lostDatagramsAreCounted() throws {
        let (oracle, _) = try run(transport: .udp)
        var lossy = oracle
        // An overlay whose last part was lost, though the service applied the pose.
        lossy.frames[30].request.answered = 0
        #expect(failed(lossy.verdicts()) == [])
        let summary = ProbeRecording(lossy.frames.map(\.request)).summary("all", .min, .max)
        #expect(summary.unanswered == 1)
        // The same over a connection is a fault.
        lossy.transport = .tcp
        #expect(failed(lossy.verdicts()) == ["TCP connection never closed"])
    }

    @Test(.timeLimit(.minutes(1))) func pausesMissFrames() throws {
        let (oracle, recording) = try run(seconds: 1) { server in
            server.signal(SIGSTOP)
            usleep(100_000)
            server.signal(SIGCONT)
        }
        #expect(failed(oracle.verdicts()) == [], "\(oracle.verdicts())")
        // Of the 20 frames in the pause 16 waited for more than 20 ms.
        let summary = recording.summary("all", .min, .max)
        let late = try #require(summary.late)
        #expect(late >= 14 && late < summary.requests / 2)
    }
}

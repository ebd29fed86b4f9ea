import CLinux
import Glibc
import LinuxKernel
import Testing

@testable import Testbed

/// A redis-server in edge-a, asked from ue: what the client calls right and wrong. Each verdict is seen to fail.
@Suite(.serialized, .enabled(if: geteuid() == 0))
struct RedisProbeTests {
    /// A testbed's network with a plain server in edge-a.
    private final class Bench {
        let testbed: Testbed
        let endpoint: RedisEndpoint
        var server: ChildProcess
        init() throws {
            testbed = Testbed(try Topology(instance: "tb-redis"))
            testbed.down()
            try testbed.upNetwork()
            endpoint = RedisEndpoint(address: "10.78.0.1", namespace: testbed.topology.userDevice)
            server = try Self.start(testbed)
            try endpoint.waitUntilReady(seconds: 10)
            // Other work on the machine must not look like the server's delay.
            _ = clx_setpriority(server.pid, -15)
        }
        static func start(_ testbed: Testbed) throws -> ChildProcess {
            try ChildProcess(
                "redis-server", ["--save", "", "--appendonly", "no", "--bind", "0.0.0.0", "--protected-mode", "no"],
                folder: "/tmp", namespace: testbed.topology.hosts[0].namespace, diesWithParent: true)
        }
        deinit {
            server.stop(grace: 0)
            testbed.down()
        }
        func sleep(_ seconds: Double) { usleep(UInt32(seconds * 1e6)) }
        func command(_ parts: [String]) throws {
            try endpoint.run {
                let connection = try RedisConnection(endpoint, timeout: 5)
                RESPCommand.append(parts.map { Array($0.utf8) }, to: &connection.output)
                _ = try connection.reply()
            }
        }
    }

    /// - Parameter other: a verdict that the test is not about: on a busy machine a timer may fire.
    private func failed(_ verdicts: [Verdict], butFor other: String? = nil) -> [String] {
        verdicts.filter { !$0.passed && $0.name != other }.map(\.name)
    }
    private let noWait = "no wait for a retransmission timeout"

    @Test(.timeLimit(.minutes(1)))
    func calmServerPasses() throws {
        let bench = try Bench()
        let filler = RedisFiller(bench.endpoint, bytes: 8 << 20)
        try filler.fill()
        let probe = try RedisProbe(bench.endpoint)
        bench.sleep(3)
        #expect(probe.failure == nil)
        let recording = probe.stop()
        let window = recording.window()
        print(
            "calm: \(window.requests) requests, usual gap \(window.usualGap) ms, gap p99 \(window.gapP99), largest"
                + " \(window.largestGap), latency p50 \(window.p50) p99 \(window.p99) p99.9 \(window.p999),"
                + " workload \(window.workloadDowntime), real-time \(recording.realTime)")
        #expect(failed(recording.verdicts()) == [], "\(recording.problems)")
        #expect(window.requests >= 2000)
        #expect(window.unanswered == 0)
        #expect((0.9...1.1).contains(window.usualGap))
        #expect(recording.writesAcknowledged > 1800)
        let check = try filler.verify()
        #expect(check.passed && check.checked == filler.count)
    }

    @Test(.timeLimit(.minutes(1)))
    func pauseIsMeasured() throws {
        let bench = try Bench()
        let probe = try RedisProbe(bench.endpoint)
        bench.sleep(0.5)
        // At most the one, at least the other (milliseconds): this thread may wait before and after each signal.
        var pauses: [(range: ClosedRange<Int64>, least: Double)] = []
        for _ in 0..<5 {
            let began = monotonicNow()
            bench.server.signal(SIGSTOP)
            let stopped = monotonicNow()
            bench.sleep(0.05)
            let woken = monotonicNow()
            bench.server.signal(SIGCONT)
            pauses.append((began...monotonicNow(), Double(woken - stopped) / 1e6))
            bench.sleep(0.4)
        }
        let recording = probe.stop()
        var exact = 0
        for (range, least) in pauses {
            let pause = Double(range.upperBound - range.lowerBound) / 1e6
            let window = recording.window(range.lowerBound - 200_000_000, range.upperBound + 200_000_000)
            print("pause \(pause) ms: client \(window.clientDowntime), workload \(window.workloadDowntime)")
            // Less than the pause by at most one period: when it begins between two requests is chance. More only
            // when the machine did something else, which most of the times it does not.
            #expect(window.clientDowntime > least - 2 && window.workloadDowntime > least - 2)
            // A request due in the pause counts from when it was due.
            #expect(window.slowest > least - 2)
            #expect(window.gapBegan > range.lowerBound - 10_000_000 && window.gapBegan < range.upperBound)
            if window.clientDowntime < pause + 2 && window.workloadDowntime < pause + 2 { exact += 1 }
        }
        #expect(exact >= 2)
        #expect(failed(recording.verdicts(blackouts: pauses.map(\.range))) == [], "\(recording.problems)")
    }

    @Test(.timeLimit(.minutes(1)))
    func restartFailsTheConnection() throws {
        let bench = try Bench()
        let probe = try RedisProbe(bench.endpoint)
        bench.sleep(0.3)
        bench.server.stop(grace: 0)
        bench.server = try Bench.start(bench.testbed)
        try bench.endpoint.waitUntilReady(seconds: 10)
        #expect(waitUntil(seconds: 5) { probe.failure != nil })
        let recording = probe.stop()
        #expect(recording.closed != nil)
        #expect(failed(recording.verdicts()).contains("TCP connection never closed"))
        // It came back empty.
        #expect(failed(recording.verdicts()).contains("every acknowledged write present"))
    }

    @Test(.timeLimit(.minutes(1)))
    func lostWriteIsFound() throws {
        let bench = try Bench()
        let probe = try RedisProbe(bench.endpoint)
        bench.sleep(0.3)
        try bench.command(["DEL", "apus:probe:key:3"])
        bench.sleep(0.2)
        let recording = probe.stop()
        #expect(recording.writesLost == 1)
        #expect(failed(recording.verdicts(), butFor: noWait) == ["every acknowledged write present"])
    }

    @Test(.timeLimit(.minutes(1)))
    func counterGapIsFound() throws {
        let bench = try Bench()
        let probe = try RedisProbe(bench.endpoint)
        bench.sleep(0.3)
        try bench.command(["INCR", "apus:probe:counter"])
        bench.sleep(0.2)
        let recording = probe.stop()
        #expect(recording.counterErrors == 1)
        #expect(failed(recording.verdicts(), butFor: noWait) == ["counter without gap or repeat"])
        #expect(recording.problems.first?.contains("went from") == true)
    }

    @Test(.timeLimit(.minutes(1)))
    func droppedFramesShowAsTimeout() throws {
        let bench = try Bench()
        let probe = try RedisProbe(bench.endpoint)
        bench.sleep(0.5)
        let access = bench.testbed.topology.access
        let port = bench.testbed.topology.userDevices[0].farPort
        let began = monotonicNow()
        // Port state 0 is "disabled", 3 "forwarding".
        try runProgram("bridge", ["link", "set", "dev", port, "state", "0"], namespace: access)
        bench.sleep(0.3)
        try runProgram("bridge", ["link", "set", "dev", port, "state", "3"], namespace: access)
        let ended = monotonicNow()
        bench.sleep(1.5)
        let recording = probe.stop()
        let window = recording.window(began, ended + 1_000_000_000)
        print("dropped \(Double(ended - began) / 1e6) ms: \(window), counters \(recording.counters)")
        #expect(window.timeouts > 0 && recording.counters.timeouts > 0)
        #expect(window.clientDowntime > 290)
        #expect(failed(recording.verdicts()) == [noWait])
    }

    @Test(.timeLimit(.minutes(1)))
    func loadIsMeasured() throws {
        let bench = try Bench()
        let full = try RedisLoad(bench.endpoint, .closed(pipeline: 1)).run(seconds: 1)
        let half = try RedisLoad(bench.endpoint, .open(rate: 2000)).run(seconds: 1)
        print("closed loop: \(full)\nopen loop: \(half)")
        #expect(full.errors == 0 && full.throughput > 500)
        #expect(full.p50 <= full.p99 && full.p99 <= full.p999 && full.p999 <= full.slowest * 1.02)
        #expect(half.throughput > 1000 && half.throughput < 2100)
    }

    @Test(.timeLimit(.minutes(1)))
    func spoiltValueIsFound() throws {
        let bench = try Bench()
        let filler = RedisFiller(bench.endpoint, bytes: 1 << 20)
        try filler.fill()
        try bench.command(["SETRANGE", "apus:fill:000000007", "1000", "x"])
        try bench.command(["DEL", "apus:fill:000000009"])
        let check = try filler.verify()
        #expect(check.wrong == 1 && check.missing == 1)
        #expect(check.examples == ["apus:fill:000000007", "apus:fill:000000009"])
    }
}

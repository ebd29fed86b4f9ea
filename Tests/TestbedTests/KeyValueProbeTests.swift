import CLinux
import Glibc
import LinuxKernel
import Testing

@testable import Testbed

/// Servers in edge-a, asked from ue by the YCSB-like client: what it calls right and wrong.
@Suite(.serialized, .enabled(if: geteuid() == 0))
struct KeyValueProbeTests {
    /// A testbed's network with a plain server in edge-a.
    private final class Bench {
        let testbed: Testbed
        let server: KeyValueServer
        private let process: ChildProcess
        init(_ dialect: KeyValueDialect) throws {
            testbed = Testbed(try Topology(instance: "tb-kv"))
            testbed.down()
            try testbed.upNetwork()
            server = KeyValueServer(dialect, address: "10.78.0.1", namespace: testbed.topology.userDevice)
            let command: [String] =
                switch dialect {
                case .redis: ["redis-server", "--save", "", "--bind", "0.0.0.0", "--protected-mode", "no"]
                case .memcached: ["memcached", "-u", "root", "-l", "0.0.0.0", "-U", "0"]
                }
            process = try ChildProcess(
                command[0], Array(command.dropFirst()), folder: "/tmp", namespace: testbed.topology.hosts[0].namespace,
                diesWithParent: true)
            try server.waitUntilReady(seconds: 10)
            _ = clx_setpriority(process.pid, -15)
        }
        deinit {
            process.stop(grace: 0)
            testbed.down()
        }
        /// Behind the client's back.
        func set(_ key: Int, _ version: UInt32) throws {
            try server.run {
                let connection = try KeyValueConnection(server, timeout: 5)
                connection.set(KeyValueRecords.key(key), KeyValueRecords().value(key, version))
                #expect(try connection.reply() == .stored)
            }
        }
    }

    private func options() -> KeyValueProbe.Options {
        var options = KeyValueProbe.Options(bytes: 1 << 20)
        options.rate = 2000
        return options
    }

    private func failed(_ verdicts: [Verdict]) -> [String] { verdicts.filter { !$0.passed }.map(\.name) }

    @Test(.timeLimit(.minutes(1)), arguments: [KeyValueDialect.redis, .memcached])
    func calmServerPasses(dialect: KeyValueDialect) throws {
        let bench = try Bench(dialect)
        let probe = try KeyValueProbe(bench.server, options: options())
        usleep(500_000)
        let recording = probe.stop()
        // On a busy machine a timer may fire.
        let verdicts = recording.verdicts().filter { $0.name != "no wait for a retransmission timeout" }
        #expect(failed(verdicts) == [], "\(recording.problems)")
        #expect(recording.asked.requests.count >= 800 && recording.client.unanswered == 0)
        #expect(recording.oracle.checked == 1024 && recording.oracle.acknowledged > 1024 + 300)
        #expect(recording.client.byConnection.allSatisfy { $0.count > 50 })
    }

    @Test(.timeLimit(.minutes(1)))
    func oldValueIsFound() throws {
        let bench = try Bench(.redis)
        let probe = try KeyValueProbe(bench.server, options: options())
        usleep(500_000)
        // The keys asked for most often have had many writes by now. Half of the requests are writes that mend it.
        for _ in 0..<20 {
            for rank in 0..<4 { try bench.set(Int(KeyChooser.hash(UInt64(rank)) % 1024), 1) }
            usleep(20_000)
        }
        let recording = probe.stop()
        #expect(failed(recording.verdicts()).contains("every read exact and new enough"))
        #expect(recording.oracle.stale > 0)
    }

    @Test(.timeLimit(.minutes(1)))
    func lostWriteIsFound() throws {
        let bench = try Bench(.redis)
        var options = options()
        options.mix = .c
        let probe = try KeyValueProbe(bench.server, options: options)
        try bench.server.run {
            let connection = try KeyValueConnection(bench.server, timeout: 5)
            RESPCommand.append("DEL", KeyValueRecords.key(3), to: &connection.output)
            _ = try connection.reply()
        }
        let recording = probe.stop()
        #expect(failed(recording.verdicts()).contains("every acknowledged write present"))
        #expect(recording.oracle.lost == 1)
    }
}

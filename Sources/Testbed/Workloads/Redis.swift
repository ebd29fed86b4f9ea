// redis as a workload: Debian's server, filled, with one client that asks every millisecond over one connection.
import Agent
import Glibc
import LinuxKernel
import Migration

/// A redis-server on the testbed with a `RedisProbe` as its client.
final class Redis: Workload {
    let container = Demo.container
    private let memory: UInt64
    private let topology: Topology
    private let folder: String
    private var filler: RedisFiller?
    private var probe: RedisProbe?
    private var at: EdgeHost?
    private let address = "10.78.0.10"
    private let mac = "02:42:0a:4e:00:0a"

    /// - Parameter memory: bytes of values.
    init(memory: UInt64, topology: Topology, folder: String) {
        (self.memory, self.topology, self.folder) = (memory, topology, folder)
    }

    func start(on host: EdgeHost) async throws {
        let bundle = folder + "/bundle-redis"
        try makeFolders(bundle)
        try await AgentHosts().run(
            ScenarioContainer(
                name: container, bundle: try Demo.buildBundle(in: bundle), address: address, mac: mac),
            on: host)
        at = host
        let endpoint = RedisEndpoint(address: address, namespace: topology.userDevice)
        try endpoint.waitUntilReady(seconds: 20)
        let filler = RedisFiller(endpoint, bytes: memory)
        try filler.fill()
        self.filler = filler
        probe = try RedisProbe(endpoint)
    }

    func finish(on host: EdgeHost, after report: MigrationReport?) async throws -> Observation {
        guard let probe, let filler else { throw TestbedError("redis was not started") }
        at = host
        let content = try filler.verify()
        let recording = probe.stop()
        self.probe = nil
        var result = Observation()
        result.verdicts = [
            Verdict(
                "every value of the fill intact", content.passed,
                "\(content.checked) compared, \(content.missing) missing, \(content.wrong) wrong")
        ]
        guard let report else {
            result.verdicts += recording.verdicts()
            try await remove()
            return result
        }
        let (decided, frozen, released) = (
            report.releasedAt - Int64(report.migrationTime * 1e6), report.frozenAt, report.releasedAt
        )
        result.verdicts += recording.verdicts(blackouts: [frozen...max(frozen, released)])
        let window = recording.window(
            decided, released + 1_000_000_000, blackout: frozen...max(frozen, released))
        result.clientDowntime = window.clientDowntime
        result.workloadDowntime = window.workloadDowntime
        result.disturbance = window.largestGapElsewhere
        result.latency = [
            recording.summary("before", .min, decided), recording.summary("during", decided, released),
            recording.summary("after", released, .max),
        ]
        result.timeline = recording.timeline(around: frozen)
        try await remove()
        return result
    }

    func abandon() async {
        _ = probe?.stop()
        probe = nil
        try? await remove()
    }

    private func remove() async throws {
        guard let host = at else { return }
        at = nil
        try await AgentHosts().remove(container, from: host)
    }
}

extension RedisRecording {
    /// The latency of the requests that were due between two instants, counted from when they were due.
    func summary(_ stretch: String, _ from: Int64, _ to: Int64) -> LatencySummary {
        let due = samples.filter { $0.intended >= from && $0.intended < to }
        let times = due.filter { $0.answered > 0 }.map { $0.answered - $0.intended }.sorted()
        func part(_ share: Double) -> Double { Double(Self.quantile(times, share)) / 1e6 }
        return LatencySummary(
            stretch: stretch, requests: due.count, unanswered: due.count - times.count, p50: part(0.5), p95: part(0.95),
            p99: part(0.99), p999: part(0.999), slowest: Double(times.last ?? 0) / 1e6)
    }

    /// Every answer from 1 s before an instant to 1 s after it.
    func timeline(around instant: Int64) -> [TimelinePoint] {
        samples.filter { $0.answered > 0 && abs($0.intended - instant) < 1_000_000_000 }.map {
            TimelinePoint(at: Double($0.intended - instant) / 1e6, latency: Double($0.answered - $0.intended) / 1e6)
        }
    }
}

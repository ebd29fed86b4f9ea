// redis as a workload: Debian's server, filled, with one client that asks every millisecond over one connection.
import Agent
import Glibc
import LinuxKernel
import Migration

/// A redis-server on the testbed with a `RedisProbe` as its client.
final class Redis: Workload {
    let container: String
    var containers: [String] { [container] }
    private let memory: UInt64
    private let place: WorkloadPlace
    private var filler: RedisFiller?
    private var probe: RedisProbe?
    private var at: EdgeHost?
    private var outages: [ClosedRange<Int64>] = []

    /// - Parameter memory: bytes of values.
    init(memory: UInt64, _ place: WorkloadPlace) {
        (self.memory, self.place) = (memory, place)
        container = place.name(Demo.container)
    }

    func start(on host: EdgeHost) async throws {
        let bundle = "\(place.folder)/bundle-\(container)"
        let (address, mac) = place.address()
        try makeFolders(bundle)
        try await AgentHosts().run(
            ScenarioContainer(
                name: container, bundle: try Demo.buildBundle(in: bundle), address: address, mac: mac),
            on: host)
        at = host
        let endpoint = RedisEndpoint(address: address, namespace: place.client)
        try endpoint.waitUntilReady(seconds: 20)
        let filler = RedisFiller(endpoint, bytes: memory)
        try filler.fill()
        self.filler = filler
        probe = try RedisProbe(endpoint)
    }

    func hadNoLink(_ outages: [ClosedRange<Int64>]) { self.outages = outages.map(\.untilTimersFired) }

    func finish(after moves: [Move]) async throws -> Outcome {
        guard let probe, let filler else { throw TestbedError("redis was not started") }
        at = moves.last?.end ?? at
        let content = try filler.verify()
        let recording = probe.stop()
        self.probe = nil
        var result = Outcome()
        let asked = recording.asked
        result.observations = moves.observations(by: asked)
        result.recording = asked
        for (index, move) in moves.enumerated() {
            guard let report = move.report else { continue }
            // The server's own clock tells when it was at work.
            result.observations[index].workloadDowntime =
                recording.window(report.decidedAt, report.releasedAt + 1_000_000_000, blackout: report.blackout)
                .workloadDowntime
        }
        result.verdicts =
            [
                Verdict(
                    "every value of the fill intact", content.passed,
                    "\(content.checked) compared, \(content.missing) missing, \(content.wrong) wrong")
            ] + recording.verdicts(blackouts: (moves.compactMap(\.report?.blackout) + outages).merged)
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
    /// The requests as any client's.
    var asked: ProbeRecording {
        ProbeRecording(
            samples.map { ProbeRequest(intended: $0.intended, sent: $0.sent, answered: $0.answered) })
    }
}

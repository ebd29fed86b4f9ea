// redis and memcached under a YCSB-like mix: Debian's servers, filled, with one client that has several connections.
import Agent
import Containers
import LinuxKernel
import Migration

/// A key-value store on the testbed with a `KeyValueProbe` as its client.
final class KeyValueStore: Workload {
    let container: String
    var containers: [String] { [container] }
    private let dialect: KeyValueDialect
    private let options: KeyValueProbe.Options
    private let place: WorkloadPlace
    private var probe: KeyValueProbe?
    private var at: EdgeHost?
    private var outages: [ClosedRange<Int64>] = []

    init(_ dialect: KeyValueDialect, _ options: KeyValueProbe.Options, _ place: WorkloadPlace) {
        (self.dialect, self.options, self.place) = (dialect, options, place)
        container = place.name(dialect.rawValue)
    }

    func start(on host: EdgeHost) async throws {
        let (address, mac) = place.address()
        try await AgentHosts().run(
            ScenarioContainer(name: container, bundle: try buildBundle(), address: address, mac: mac), on: host)
        at = host
        let server = KeyValueServer(dialect, address: address, namespace: place.client)
        try server.waitUntilReady(seconds: 20)
        probe = try KeyValueProbe(server, options: options)
    }

    func hadNoLink(_ outages: [ClosedRange<Int64>]) { self.outages = outages.map(\.untilTimersFired) }

    func finish(after moves: [Move]) async throws -> Outcome {
        guard let probe else { throw TestbedError("\(container) was not started") }
        at = moves.last?.end ?? at
        let recording = probe.stop()
        self.probe = nil
        var result = Outcome()
        let asked = recording.asked
        result.observations = moves.observations(by: asked)
        result.recording = asked
        result.verdicts = recording.verdicts(blackouts: (moves.compactMap(\.report?.blackout) + outages).merged)
        if let problem = recording.problems.first, let wrong = result.verdicts.firstIndex(where: { !$0.passed }) {
            result.verdicts[wrong].detail += "; first: \(problem)"
        }
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

    private func buildBundle() throws -> String {
        let folder = "\(place.folder)/bundle-\(container)"
        removeTree(folder)
        try makeFolders(place.folder)
        switch dialect {
        case .redis: return try Demo.buildBundle(in: folder)
        case .memcached:
            // Room for every value with its header and key in slabs whose chunks are up to a quarter too large;
            // -M: what does not fit is an error, never a silent eviction.
            let room = (options.bytes * 3 / 2) >> 20 + 64
            var builder = BundleBuilder(
                programs: ["/usr/bin/memcached"],
                arguments: [
                    "/usr/bin/memcached", "-u", "root", "-l", "0.0.0.0", "-U", "0", "-m", "\(room)", "-M", "-t", "2",
                    "-c", "256",
                ])
            builder.hostName = "memcached"
            builder.openFiles = 1024
            try builder.build(in: folder)
            return folder
        }
    }
}

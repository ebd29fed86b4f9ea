// The distributed application: a gateway, a worker and a store in containers of their own that talk over TCP.
import Agent
import Containers
import Glibc
import LinuxKernel
import Migration

/// Three containers, moved one by one: in between they stand on different hosts and go on talking to each other.
/// `Workloads/distributed.h` tells what each of them does, and why an answer shows what any of them has lost.
final class DistributedApplication: Workload {
    private let place: WorkloadPlace
    private let memory: UInt64
    private let rate: Double
    private var filler: RedisFiller?
    private var probe: DistributedProbe?
    /// The containers that run, and where.
    private var at: [String: EdgeHost] = [:]

    private static let parts = ["gateway", "worker", "store"]
    var containers: [String] { Self.parts.map { place.name($0) } }

    /// - Parameters:
    ///   - memory: bytes of state: half of them the worker's pages, half values in the store.
    ///   - rate: requests a second.
    init(memory: UInt64, rate: Double, _ place: WorkloadPlace) {
        (self.memory, self.rate, self.place) = (memory, rate, place)
    }

    func start(on host: EdgeHost) async throws {
        let (gateway, worker, store) = (
            place.address(part: 0).ip, place.address(part: 1).ip, place.address(part: 2).ip
        )
        // Each one connects to the next, so the last one comes first.
        try await run(2, on: host, Demo.command)
        let endpoint = RedisEndpoint(address: store, namespace: place.client)
        try endpoint.waitUntilReady(seconds: 20)
        let filler = RedisFiller(endpoint, bytes: memory / 2)
        try filler.fill()
        self.filler = filler
        try await run(1, on: host, ["/bin/worker", "--store", "\(store):6379", "--memory", "\(memory / 2)"])
        try await run(0, on: host, ["/bin/gateway", "--worker", "\(worker):9001"])
        try endpoint.run {
            var last: any Error = TestbedError("no time")
            let ready = waitUntil(seconds: 60, interval: 20) {
                do {
                    return try DistributedConnection(gateway, timeout: 5).status().number == 0
                } catch {
                    last = error
                    return false
                }
            }
            if !ready { throw TestbedError("the gateway does not answer: \(last)") }
        }
        probe = try DistributedProbe(gateway: gateway, store: endpoint, rate: rate)
    }

    private func run(_ part: Int, on host: EdgeHost, _ command: [String]) async throws {
        let name = containers[part]
        let folder = "\(place.folder)/bundle-\(name)"
        removeTree(folder)
        try makeFolders(place.folder)
        let isOurs = command[0].hasPrefix("/bin/")
        var builder = BundleBuilder(programs: isOurs ? [] : [command[0]], arguments: command)
        builder.hostName = Self.parts[part]
        builder.openFiles = 4096
        try builder.build(in: folder)
        if isOurs {
            let copy = try FileDescriptor(
                opening: folder + "/rootfs" + command[0], O_WRONLY | O_CREAT | O_EXCL, mode: 0o755)
            try SmallFile.read("\(place.programs)/\(Self.parts[part])").withUnsafeBytes { try copy.write($0) }
        }
        let (address, mac) = place.address(part: part)
        try await AgentHosts().run(ScenarioContainer(name: name, bundle: folder, address: address, mac: mac), on: host)
        at[name] = host
    }

    func finish(after moves: [Move]) async throws -> Outcome {
        guard let probe, let filler else { throw TestbedError("the distributed application was not started") }
        for container in containers { at[container] = moves.end(of: container) ?? at[container] }
        let (recording, oracle) = probe.stop()
        self.probe = nil
        let content = try filler.verify()
        var result = Outcome()
        result.observations = moves.observations(by: recording.asked)
        result.verdicts =
            oracle.verdicts + [
                Verdict(
                    "every value of the store's fill intact", content.passed,
                    "\(content.checked) compared, \(content.missing) missing, \(content.wrong) wrong")
            ] + recording.verdicts(blackouts: moves.compactMap(\.report?.blackout))
        if let problem = oracle.problems.first, let wrong = result.verdicts.firstIndex(where: { !$0.passed }) {
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

    /// The gateway first, so that nobody sees another one vanish.
    private func remove() async throws {
        for container in containers {
            guard let host = at.removeValue(forKey: container) else { continue }
            try await AgentHosts().remove(container, from: host)
        }
    }
}

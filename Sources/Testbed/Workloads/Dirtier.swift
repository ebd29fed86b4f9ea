// The dirtier in a container: a workload that writes pages at a steady rate, knows its own gaps and its memory.
import Agent
import Containers
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration

/// One line of the dirtier's output: what its oracle says and when it did not run.
public struct DirtierVerdict: Codable, Sendable {
    /// "ok", "corrupt" or "unchecked".
    public var oracle: String
    public var writes: UInt64
    /// The largest gap since the last reset, microseconds.
    public var largest: Double
    /// Gaps of more than 1 ms since the last reset, largest first.
    public var gaps: [TickGap]
    private enum CodingKeys: String, CodingKey { case oracle, writes, largest = "max_gap_us", gaps }

    // See `[TickGap]`.
    func downtime(_ report: MigrationReport) -> Double? { gaps.downtime(report) }
    func delay(_ report: MigrationReport) -> Double? { gaps.delay(report) }
    func disturbance(_ report: MigrationReport) -> Double { gaps.disturbance(report) }
}

/// How a dirtier's rate changes within a period; the mean is the same for all. `Workloads/dirtier.c` has the shapes.
public enum DirtyProfile: String, Codable, Sendable, CaseIterable {
    case constant
    /// 1.8 times the mean for half a period, then 0.2 times.
    case square
    /// 0 to 2 times.
    case sine
    /// 10 times for a tenth of a period, then none.
    case bursts
}

/// A dirtier on the testbed.
final class Dirtier: Workload {
    /// What the program is called with; `Workloads/dirtier.c` describes it.
    struct Options {
        /// Bytes.
        var memory: UInt64
        /// Pages written a second.
        var rate: UInt64 = 5000
        /// Contiguous bytes written at once.
        var writeSize: UInt64 = 4096
        var profile = DirtyProfile.constant
        /// Seconds.
        var profilePeriod = 1.0
        /// Percent of the memory that is written again.
        var workingSet = 100
        /// Percent of a page that a write changes.
        var share = 100
        /// Which pages are written.
        var distribution = AccessDistribution.uniform

        var arguments: [String] {
            [
                "--memory", "\(memory)", "--rate", rate == 0 ? "idle" : "\(rate)", "--write-size", "\(writeSize)",
                "--profile", profile.rawValue, "--profile-period", "\(Int((profilePeriod * 1000).rounded()))",
                "--working-set", "\(workingSet)", "--share", "\(share)", "--distribution", distribution.rawValue,
                "--threads", "1",
            ]
        }
    }

    let container: String
    var containers: [String] { [container] }
    private let options: Options
    /// Where bundles are made.
    private let folder: String
    /// The program that Workloads/Makefile builds.
    private let program: String
    /// Where a client on the testbed finds it; nil: nobody asks it anything.
    private let place: WorkloadPlace?
    private var client: DirtierClient?
    private var outages: [ClosedRange<Int64>] = []
    private(set) var at: EdgeHost?
    private var logOffset: UInt64 = 0
    private var unread: [UInt8] = []

    /// One without a network.
    init(_ options: Options, name: String = "dirtier", program: String, folder: String) {
        (self.options, self.container, self.program, self.folder) = (options, name, program, folder)
        place = nil
    }

    /// One with a client that asks each millisecond.
    init(_ options: Options, _ place: WorkloadPlace) {
        (self.options, self.place, folder) = (options, place, place.folder)
        (container, program) = (place.name("dirtier"), place.programs + "/dirtier")
    }

    func start(on host: EdgeHost) async throws {
        let bundle = "\(folder)/bundle-\(container)"
        removeTree(bundle)
        try makeFolders(folder)
        let endpoint = place.map { ServiceEndpoint(address: $0.address().ip, namespace: $0.client) }
        let listening = endpoint.map { ["--listen", "\($0.port)"] } ?? []
        var builder = BundleBuilder(programs: [], arguments: ["/bin/dirtier"] + options.arguments + listening)
        builder.hostName = "dirtier"
        try builder.build(in: bundle)
        let copy = try FileDescriptor(opening: bundle + "/rootfs/bin/dirtier", O_WRONLY | O_CREAT | O_EXCL, mode: 0o755)
        try SmallFile.read(program).withUnsafeBytes { try copy.write($0) }
        if let (address, mac) = place?.address() {
            try await AgentHosts().run(
                ScenarioContainer(name: container, bundle: bundle, address: address, mac: mac), on: host)
        } else {
            try host.machine?.bring(bundle)
            _ = try await AgentClient(host: host.name).run(RunRequest(name: container, bundle: bundle))
        }
        (at, logOffset, unread) = (host, 0, [])
        guard try await line(seconds: 120).contains("\"ready\"") else { throw TestbedError("the dirtier is not ready") }
        if let endpoint {
            try endpoint.waitUntilReady(seconds: 20)
            client = try DirtierClient(endpoint)
        }
    }

    func hadNoLink(_ outages: [ClosedRange<Int64>]) { self.outages = outages.map(\.untilTimersFired) }

    /// Forgets the gaps that it has noticed.
    func reset() async throws {
        try await AgentClient(host: try host().name).kill(container, signal: SIGUSR2)
        // It attends to signals every 20 ms.
        try await Task.sleep(for: .milliseconds(300))
    }

    /// It was moved.
    func moved(to host: EdgeHost) { at = host }

    func finish(after moves: [Move]) async throws -> Outcome {
        at = moves.last?.end ?? at
        // The gap of the last blackout is known with the first tick after it.
        try await Task.sleep(for: .milliseconds(50))
        let recording = client?.stop()
        client = nil
        let verdict = try await verdict()
        var result = Outcome()
        result.recording = recording?.steady.asked
        let seen = recording.map { moves.observations(by: $0.steady.asked) }
        result.observations = moves.indices.map { index in
            var observation = seen?[index] ?? Observation()
            if let report = moves[index].report {
                observation.workloadDowntime = verdict.downtime(report)
                // What the program itself misses; its client's gaps contain the network's.
                observation.disturbance = verdict.disturbance(report)
                observation.dirtyRate = recording?.pagesPerSecond(from: report.decidedAt, to: report.frozenAt)
            }
            return observation
        }
        if let recording {
            result.verdicts = recording.verdicts(
                blackouts: (moves.compactMap(\.report?.blackout) + outages).merged)
        }
        result.verdicts += [.init("memory exact", verdict.oracle == "ok", "every page checked: \(verdict.oracle)")]
        try await remove()
        return result
    }

    func abandon() async { try? await remove() }

    func remove() async throws {
        _ = client?.stop()
        client = nil
        guard let host = at else { return }
        at = nil
        try await AgentClient(host: host.name).remove(container, force: true)
    }

    private func host() throws -> EdgeHost {
        guard let at else { throw TestbedError("the dirtier does not run") }
        return at
    }

    /// Has every page checked.
    func verdict() async throws -> DirtierVerdict {
        try await AgentClient(host: try host().name).kill(container, signal: SIGUSR1)
        let line = try await line(seconds: 180)
        do { return try JSONDecoder().decode(DirtierVerdict.self, from: Data(line.utf8)) } catch {
            throw TestbedError("the dirtier's verdict is not understood: \(line)")
        }
    }

    /// The next line of its output.
    private func line(seconds: Double) async throws -> String {
        let deadline = monotonicNow() + Int64(seconds * 1e9)
        while true {
            if let end = unread.firstIndex(of: 10) {
                defer { unread.removeFirst(end + 1) }
                return String(decoding: unread[..<end], as: UTF8.self)
            }
            let piece = try await AgentClient(host: try host().name).log(container, from: logOffset)
            logOffset += UInt64(piece.count)
            unread += piece
            if !piece.isEmpty { continue }
            guard monotonicNow() < deadline else { throw TestbedError("the dirtier said nothing for \(seconds) s") }
            try await Task.sleep(for: .milliseconds(20))
        }
    }
}

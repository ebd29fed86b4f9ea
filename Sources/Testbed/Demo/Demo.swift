// The demo: a live redis changes hosts by each technique while a client talks to it.
import Containers
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration

/// Runs the demo on a testbed that stands.
public struct Demo: Sendable {
    public struct Options: Sendable {
        public var memory = ByteCount(256 << 20)
        /// Requests a second.
        public var rate = 1000.0
        /// How often the three moves are made.
        public var repetitions = 1
        public var techniques: [Technique] = [.cold, .preCopy, .migrror]
        public var values = ValueGenerator()
        /// Seconds that the client runs undisturbed before the first move.
        public var calm = 2.0
        public init() {}
    }

    public let topology: Topology
    public let options: Options
    let hosts: any ContainerHosts
    /// Told what is going on, a line a step, with the seconds since the start.
    let progress: @Sendable (String) -> Void
    /// Where the bundle is built.
    let folder: String
    /// The container's address among the clients.
    var address = "10.78.0.10"
    var mac = "02:42:0a:4e:00:0a"
    static let container = "redis"

    public init(
        _ topology: Topology, _ options: Options, hosts: any ContainerHosts, folder: String,
        progress: @escaping @Sendable (String) -> Void
    ) {
        self.topology = topology
        self.options = options
        self.hosts = hosts
        self.folder = folder
        self.progress = progress
    }

    /// Makes the container, fills it, moves it. Errors become problems of the report, so that a report is always there.
    public func run() async -> DemoReport {
        let start = monotonicNow()
        var report = DemoReport(
            settings: .init(
                instance: topology.instance, memory: options.memory.bytes, rate: options.rate,
                backhaul: topology.backhaul, repetitions: options.repetitions, values: options.values.description,
                valueGenerator: options.values))
        report.startedAt = Date().ISO8601Format()
        report.network = EdgeNetwork(topology).check()
        do {
            try await run(&report)
        } catch {
            report.problems.append("\(error)")
        }
        report.seconds = Double(monotonicNow() - start) / 1e9
        report.passed =
            report.problems.isEmpty && !report.verdicts.isEmpty && report.verdicts.allSatisfy(\.passed)
        return report
    }

    private func run(_ report: inout DemoReport) async throws {
        var at = topology.hosts[0]
        progress("building the redis container's root file system")
        let bundle = folder + "/bundle"
        try makeFolders(bundle)
        try await hosts.run(
            ScenarioContainer(
                name: Self.container, bundle: try Self.buildBundle(in: bundle), address: address, mac: mac),
            on: at)
        let endpoint = RedisEndpoint(address: address, namespace: topology.userDevice)
        try endpoint.waitUntilReady(seconds: 20)
        progress("redis runs on \(at.name) and answers \(topology.userDevice.name)")

        let filler = RedisFiller(endpoint, bytes: options.memory.bytes, generator: options.values)
        let began = monotonicNow()
        try filler.fill()
        let seconds = Double(monotonicNow() - began) / 1e9
        progress(
            "filled with \(options.memory): \(grouped(Double(filler.count))) values in"
                + " \(grouped(seconds, digits: 1)) s")

        var probe = RedisProbe.Options()
        probe.rate = options.rate
        let client = try RedisProbe(endpoint, options: probe)
        let calmFrom = monotonicNow()
        pause(options.calm)
        let calmTo = monotonicNow()
        var windows: [(Int64, Int64, MigrationReport, RedisFiller.Check)] = []
        var failure: (any Error)?
        do {
            moves: for _ in 0..<max(1, options.repetitions) {
                for technique in options.techniques {
                    let to = topology.hosts.first { $0 != at }!
                    let from = monotonicNow()
                    let migration = try await move(technique, from: at, to: to)
                    at = to
                    pause(1)
                    let end = monotonicNow()
                    let check = try filler.verify()
                    windows.append((from, end, migration, check))
                    if let problem = client.failure { throw TestbedError("after the move to \(to.name): \(problem)") }
                }
            }
        } catch {
            failure = error
        }
        let recording = client.stop()
        let calm = recording.window(calmFrom, calmTo)
        report.calm = .init(
            usualGap: calm.usualGap, gapP99: calm.gapP99, p50: calm.p50, p99: calm.p99,
            realTimeClient: recording.realTime)
        for (index, (from, to, migration, check)) in windows.enumerated() {
            let window = recording.window(
                from - 500_000_000, to, blackout: migration.frozenAt...max(migration.frozenAt, migration.releasedAt))
            report.moves.append(Self.judge(index + 1, migration, window, content: check))
        }
        report.timeoutEvents = recording.timeoutEvents
        report.tcp = recording.counters
        report.verdicts = recording.verdicts(
            blackouts: windows.map { min($0.2.frozenAt, $0.2.releasedAt)...max($0.2.frozenAt, $0.2.releasedAt) })
        let spoilt = windows.map(\.3).filter { !$0.passed }
        report.verdicts.append(
            Verdict(
                "every value of the fill intact after each move", spoilt.isEmpty && !windows.isEmpty,
                spoilt.first.map { "\($0.missing) missing, \($0.wrong) wrong: \($0.examples.joined(separator: ", "))" }
                    ?? (windows.isEmpty
                        ? "no move was made"
                        : "\(grouped(Double(filler.count))) values compared, \(windows.count) times")))
        let planned = max(1, options.repetitions) * options.techniques.count
        report.verdicts.append(
            Verdict("every move made", windows.count == planned, "\(windows.count) of \(planned)"))
        report.problems += recording.problems
        if let failure { throw failure }
        guard try await hosts.isRunning(Self.container, on: at) else {
            throw TestbedError("the container does not run on \(at.name), where it was moved")
        }
        try await hosts.remove(Self.container, from: at)
    }

    private func move(_ technique: Technique, from: EdgeHost, to: EdgeHost) async throws -> MigrationReport {
        let report = try await hosts.migrate(
            Self.container, from: from, to: to, plan: MigrationPlan(technique: technique), progress: { _ in })
        progress(
            "\(from.name) → \(to.name) by \(technique.rawValue): engine downtime"
                + " \(grouped(report.engineDowntime, digits: 2)) ms,"
                + " \(grouped(report.migrationTime / 1000, digits: 2)) s in all")
        return report
    }

    static func judge(
        _ number: Int, _ migration: MigrationReport, _ client: RedisRecording.Window, content: RedisFiller.Check?
    ) -> DemoReport.Move {
        DemoReport.Move(
            number: number, technique: migration.plan.technique, source: migration.source,
            destination: migration.destination, engineDowntime: migration.engineDowntime,
            workloadDowntime: client.workloadDowntime, clientDowntime: client.clientDowntime,
            migrationTime: migration.migrationTime, phases: migration.phases, passes: migration.passes.count,
            pagesSent: migration.pagesSent, bytesSent: migration.bytesSent, overhead: migration.overhead,
            slowestRequest: client.slowest, client: client, content: content, migration: migration)
    }

    private func pause(_ seconds: Double) { usleep(UInt32(seconds * 1e6)) }
}

// redis on its way, and redis while it is mirrored.
import Agent
import Glibc
import LinuxKernel
import Migration

/// One stretch of load on redis.
public struct MirroredLoad: Codable, Sendable {
    public var mirrored: Bool
    /// Whether every connection kept the server busy; otherwise requests came at half the saturated rate.
    public var saturated: Bool
    /// CPU time of the server's process for a request, microseconds.
    public var cpuTime: Double
    /// Share of the time in which the server's process ran.
    public var busy: Double
    public var result: RedisLoad.Result
    /// Syncs in this stretch, and the age of the mirror after it in milliseconds.
    public var syncs: Int?
    public var mirrorAge: Double?
}

extension Bench {
    /// The demo's redis and its client, moved by MiGrror only.
    func redis(_ bed: BenchBed, _ result: inout BenchCase) async throws {
        var demoOptions = Demo.Options()
        demoOptions.techniques = [.migrror]
        demoOptions.repetitions = options.redisMoves
        let report = await Demo(
            bed.topology, demoOptions, hosts: AgentHosts(), folder: bed.testbed.folder, progress: bed.progress
        ).run()
        let moves = report.moves
        result.figures = [
            Figure("engine downtime", "ms", moves.map(\.engineDowntime), aim: .median(atMost: 3)),
            Figure("workload downtime", "ms", moves.map(\.workloadDowntime)),
            Figure("client downtime", "ms", moves.map(\.clientDowntime), aim: .median(atMost: 5)),
            Figure(
                "client downtime, worst", "ms", [moves.map(\.clientDowntime).max() ?? .nan], aim: .worst(atMost: 15)),
            Figure(
                "retransmission timeouts", "", [Double(moves.reduce(0) { $0 + $1.client.timeouts })], digits: 0,
                aim: .each(atMost: 0)),
            Figure("segments sent again", "", moves.map { Double($0.client.retransmitted) }, digits: 0),
            Figure("largest gap while copying", "ms", moves.map(\.client.largestGapElsewhere)),
            Figure("slowest request", "ms", moves.map(\.slowestRequest)),
            Figure("migration time", "ms", moves.map(\.migrationTime), digits: 0),
            Figure(
                "pages sent in the freeze", "", moves.compactMap { $0.migration.passes.last.map { Double($0.pages) } },
                digits: 0),
        ]
        if moves.isEmpty { result.figures = [] }
        if !moves.isEmpty { result.freezes = [FreezeSteps("MiGrror, redis 256 MiB", moves.map(\.migration))] }
        if let calm = report.calm {
            result.notes.append(
                "the client before the first move: usual gap \(grouped(calm.usualGap, digits: 2)) ms, 99 % of gaps up to"
                    + " \(grouped(calm.gapP99, digits: 2)) ms, half of the answers within \(grouped(calm.p50 * 1000)) µs, 99 %"
                    + " within \(grouped(calm.p99 * 1000)) µs")
        }
        result.verdicts += report.verdicts
        result.problems += report.problems
        result.migrations[Technique.migrror.rawValue] = moves.map(\.migration)
        result.redis = report
        // The moves' own reports stand beside it.
        result.redis!.moves = []
    }

    /// Load on a redis that is mirrored and on one that is not, in turn.
    func mirrored(_ bed: BenchBed, _ result: inout BenchCase) async throws {
        let pairs = max(5, options.quick ? 5 : options.repetitions)
        let redis = try await MirroredRedis(on: bed)
        // The rate at which half of the saturated load is offered comes from a run of its own.
        let probe = try await redis.load(.closed(pipeline: 1), mirrored: false, seconds: 3)
        let rate = (probe.result.throughput / 2).rounded()
        progress(
            "saturated at \(grouped(probe.result.throughput)) requests/s, the server busy for \(grouped(probe.busy * 100)) %"
        )
        var failure: (any Error)?
        do {
            for pair in 0..<pairs {
                // A B, then B A: a drift of the machine falls on both alike.
                for mirrored in pair % 2 == 0 ? [false, true] : [true, false] {
                    let id = mirrored ? try await redis.beginMirroring() : nil
                    let steady = try await redis.load(.open(rate: rate), mirrored: mirrored, seconds: 5)
                    let saturated = try await redis.load(.closed(pipeline: 1), mirrored: mirrored, seconds: 2)
                    result.loads += [steady, saturated]
                    if let id {
                        result.migrations["handed over", default: []] += try await redis.endMirroring(
                            id, handOver: pair == pairs - 1)
                    }
                    progress(
                        "\(mirrored ? "mirrored" : "not mirrored"): \(grouped(steady.cpuTime, digits: 2)) µs CPU a request, p99"
                            + " \(grouped(steady.result.p99, digits: 3)) ms; saturated at \(grouped(saturated.result.throughput))/s"
                    )
                }
            }
        } catch { failure = error }
        let (with, without) = (result.loads.filter(\.mirrored), result.loads.filter { !$0.mirrored })
        let (busy, calm) = (with.filter { !$0.saturated }, without.filter { !$0.saturated })
        func ratios(_ value: (MirroredLoad) -> Double) -> [Double] { zip(busy, calm).map { value($0) / value($1) } }
        let (full, fullCalm) = (with.filter(\.saturated), without.filter(\.saturated))
        result.figures = [
            Figure("CPU time a request, mirrored / not", "×", ratios(\.cpuTime), digits: 3, aim: .median(atMost: 1.05)),
            Figure("  not mirrored", "µs", calm.map(\.cpuTime)),
            Figure("  mirrored", "µs", busy.map(\.cpuTime)),
            Figure("p99 latency, mirrored / not", "×", ratios(\.result.p99), digits: 3, aim: .median(atMost: 1.2)),
            Figure("  not mirrored", "ms", calm.map(\.result.p99), digits: 3),
            Figure("  mirrored", "ms", busy.map(\.result.p99), digits: 3),
            Figure("throughput saturated, not mirrored", "1/s", fullCalm.map(\.result.throughput), digits: 0),
            Figure("throughput saturated, mirrored", "1/s", full.map(\.result.throughput), digits: 0),
            Figure("syncs a second, mirrored", "1/s", busy.map { Double($0.syncs ?? 0) / 5 }, digits: 1),
        ]
        result.notes += [
            "offered: \(grouped(rate)) requests/s over 16 connections, half of them SETs of 64 bytes to 10,000 keys; pairs of"
                + " stretches of 5 s, ratios within a pair",
            "saturated: 16 connections, one request in flight on each, one client thread; the server's process ran for"
                + " \(grouped(fullCalm.map { $0.busy * 100 }.median)) % of the time, mirrored for"
                + " \(grouped(full.map { $0.busy * 100 }.median)) %: the rest is the client's share of this machine",
        ]
        let errors = result.loads.reduce(0) { $0 + $1.result.errors }
        result.verdicts += [
            Verdict("no request failed", errors == 0 && !result.loads.isEmpty, "\(errors) errors"),
            Verdict(
                "every pair measured", busy.count == pairs && calm.count == pairs,
                "\(min(busy.count, calm.count)) of \(pairs)"),
        ]
        if let failure { throw failure }
        let check = try redis.filler.verify()
        result.verdicts.append(
            Verdict(
                "every value of the fill intact", check.passed,
                "\(grouped(Double(check.checked))) compared on \(redis.at.name) after the handover, \(check.missing) missing,"
                    + " \(check.wrong) wrong"))
        try await redis.remove()
    }
}

/// A filled redis that is mirrored on demand.
private final class MirroredRedis {
    private(set) var at: EdgeHost
    private let bed: BenchBed
    private let endpoint = "10.78.0.10"
    private let load: RedisLoad
    let filler: RedisFiller
    private var migration: String?

    init(on bed: BenchBed) async throws {
        (self.bed, at) = (bed, bed.topology.hosts[0])
        let endpoint = RedisEndpoint(address: endpoint, namespace: bed.topology.userDevice)
        load = RedisLoad(endpoint, .open(rate: 1))
        filler = RedisFiller(endpoint, bytes: 256 << 20)
        let bundle = bed.testbed.folder + "/bundle"
        try makeFolders(bundle)
        let demo = Demo(bed.topology, .init(), hosts: AgentHosts(), folder: bed.testbed.folder, progress: { _ in })
        try await AgentHosts().run(
            ScenarioContainer(
                name: Demo.container, bundle: try Demo.buildBundle(in: bundle), address: demo.address, mac: demo.mac),
            on: at)
        try endpoint.waitUntilReady(seconds: 20)
        try filler.fill()
        bed.progress("redis filled with 256 MiB")
    }

    /// Loads the server and says what it took.
    func load(_ mode: RedisLoad.Mode, mirrored: Bool, seconds: Double) async throws -> MirroredLoad {
        var load = load
        load.mode = mode
        let server = ProcessMeter(pid: try await AgentClient(host: at.name).container(Demo.container).pid)
        let passes = try await progress()?.passes
        let (commands, cpu, start) = (try commands(), try server.cpuTime(), monotonicNow())
        let result = try load.run(seconds: seconds)
        let (used, took) = (try server.cpuTime() - cpu, Double(monotonicNow() - start) / 1e9)
        let requests = try self.commands() - commands
        let after = try await progress()
        if mirrored, after?.state != .copying { throw TestbedError("the mirroring ended under load") }
        var saturated = false
        if case .closed = mode { saturated = true }
        return MirroredLoad(
            mirrored: mirrored, saturated: saturated, cpuTime: used / max(1, requests) * 1e6, busy: used / took,
            result: result, syncs: after.flatMap { now in passes.map { now.passes - $0 } }, mirrorAge: after?.mirrorAge)
    }

    private func progress() async throws -> MigrationProgress? {
        guard let migration else { return nil }
        return try await AgentClient(host: at.name).migration(migration).progress
    }

    /// Commands that the server has processed.
    private func commands() throws -> Double {
        try load.endpoint.run {
            guard case .bulk(let bytes) = try RedisConnection(load.endpoint, timeout: 10).call("INFO", "stats"),
                let line = String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline)
                    .first(where: { $0.hasPrefix("total_commands_processed:") }),
                let count = Double(line.split(separator: ":")[1])
            else { throw TestbedError("redis does not say how many commands it has processed") }
            return count
        }
    }

    /// Returns when the mirror is in sync.
    func beginMirroring() async throws -> String {
        var plan = MigrationPlan(technique: .migrror)
        plan.handover = .atTrigger
        let other = bed.topology.hosts.first { $0 != at }!
        let id = try await AgentClient(host: at.name).migrate(Demo.container, to: other.name, plan: plan)
        migration = id
        let deadline = monotonicNow() + 60_000_000_000
        while true {
            let info = try await AgentClient(host: at.name).migration(id)
            if let error = info.error { throw error }
            if info.progress.state == .copying, info.progress.passes > 3, info.progress.lastPassPages < 1000 { break }
            guard monotonicNow() < deadline else { throw TestbedError("the mirror was not in sync after 60 s") }
            try await Task.sleep(for: .milliseconds(50))
        }
        return id
    }

    /// Cancels, or hands over and follows the container; the report of a handover.
    func endMirroring(_ id: String, handOver: Bool) async throws -> [MigrationReport] {
        let client = AgentClient(host: at.name)
        if handOver { try await client.handOver(id) } else { try await client.cancel(id) }
        let end = try await client.wait(for: id)
        migration = nil
        // The destination takes its half of the container away.
        try await Task.sleep(for: .milliseconds(500))
        if !handOver { return [] }
        if let error = end.error { throw error }
        at = bed.topology.hosts.first { $0 != at }!
        return end.report.map { [$0] } ?? []
    }

    func remove() async throws { try await AgentHosts().remove(Demo.container, from: at) }
}

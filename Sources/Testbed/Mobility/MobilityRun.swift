// Users move along their traces, and their services follow: one run on a standing testbed.
import LinuxKernel
import Migration

/// Plays traces on a testbed with access points: each user device has a service of its own, which begins on the host of
/// its first access point. Events of the traces hand devices over and decide migrations.
public struct MobilityRun: Sendable {
    public struct Options: Sendable {
        public var strategy = MobilityStrategy.proactive
        /// The technique with its parameters; the handover policy follows from the strategy.
        public var plan = MigrationPlan(technique: .migrror)
        public var workload: WorkloadOptions
        public var rules = MobilityRules()
        /// Milliseconds that a device has no link at a handoff.
        public var reconnection = 100.0
        /// Predicted: seconds that a migration is expected to take.
        public var lead = 0.0
        /// Seconds that are played in real time before and after everything that happens. What lies between is left
        /// out: nothing that is measured happens there.
        public var margin = 2.0
        /// A service that does not answer for longer than this (milliseconds) has not answered throughout; handoffs and
        /// blackouts are looked at by themselves.
        public var longestGap = 1000.0
        /// A migration that is not over after this many seconds is cancelled.
        public var patience = 120.0
        /// The folder of the workloads' programs.
        public var programs: String

        public init(_ workload: WorkloadOptions, programs: String) {
            (self.workload, self.programs) = (workload, programs)
        }
    }

    let testbed: Testbed
    let traces: [MobilityTrace]
    let options: Options

    /// - Parameter traces: one for each of the first user devices.
    /// - Throws: when they do not fit the testbed: too many, or somewhere no access point reaches a user.
    public init(_ testbed: Testbed, traces: [MobilityTrace], options: Options) throws {
        (self.testbed, self.traces, self.options) = (testbed, traces, options)
        let topology = testbed.topology
        if let mistake = options.rules.mistake { throw TestbedError(mistake) }
        guard !traces.isEmpty, traces.count <= min(topology.userDevices.count, 11) else {
            throw TestbedError(
                "\(traces.count) users move, the topology \(topology.name) has \(topology.userDevices.count) user devices"
                    + " (11 at most)")
        }
        for point in topology.accessPoints where point.host == nil {
            throw TestbedError("access point \(point.name) has no edge host beside it: mobility needs one")
        }
        for trace in traces {
            if let lost = trace.events(sites, options.rules).first(where: { $0.kind == .uncovered }) {
                throw TestbedError(
                    "no access point reaches user \(trace.user) at \(plain(lost.time)) s: a service cannot answer there"
                )
            }
        }
    }

    var sites: [CellSite] { testbed.topology.accessPoints.map { CellSite(name: $0.name, x: $0.x, y: $0.y) } }

    /// Starts the services, plays the traces, has everything verified, and removes the services.
    ///
    /// - Throws: when a service cannot be started or judged, or a device cannot be handed over. Migrations that fail are
    ///   told in the outcome.
    public func run(settle: Double = 0.5, progress: @escaping @Sendable (String) -> Void = { _ in }) async throws
        -> MobilityOutcome
    {
        let devices = testbed.topology.userDevices
        let workloads = traces.indices.map {
            testbed.workload(
                options.workload, index: $0, client: devices[$0].namespace, programs: options.programs)
        }
        for workload in workloads where workload.containers.count != 1 {
            throw TestbedError("a user's service of several containers cannot follow the user: one is possible")
        }
        do {
            var places: [Int] = []
            for (index, trace) in traces.enumerated() {
                let site = trace.firstSite(sites, options.rules)!
                places.append(site)
                let point = testbed.topology.accessPoints[site]
                try await testbed.attach(devices[index], to: point, reconnection: 0)
                try await workloads[index].start(on: testbed.topology.host(point.host!)!)
            }
            try await Task.sleep(for: .seconds(settle))
            let player = MobilityPlayer(
                self, places: places, containers: workloads.map { $0.containers[0] }, progress: progress)
            var outcome = try await player.play()
            try await Task.sleep(for: .seconds(settle))
            for (index, workload) in workloads.enumerated() {
                try await finish(workload, user: index, &outcome)
            }
            return outcome
        } catch {
            for workload in workloads { await workload.abandon() }
            throw error
        }
    }

    private func finish(_ workload: any Workload, user: Int, _ outcome: inout MobilityOutcome) async throws {
        let migrations = outcome.migrations.indices.filter { outcome.migrations[$0].user == user }
        let moves = migrations.map { index in
            let migration = outcome.migrations[index]
            return Move(
                migration.container, from: testbed.topology.host(migration.source)!,
                to: testbed.topology.host(migration.destination)!, migration.report)
        }
        let outages = outcome.handoffs.filter { $0.user == user }.map(\.outage)
        workload.hadNoLink(outages)
        let result = try await workload.finish(after: moves)
        for (index, observation) in zip(migrations, result.observations) {
            outcome.migrations[index].observation = observation
        }
        var record = MobilityUser(
            device: testbed.topology.userDevices[user].name, trace: traces[user].user, containers: workload.containers)
        record.verdicts = result.verdicts
        guard let recording = result.recording else {
            throw TestbedError("\(workload.containers[0]) has no client that tells of its answers: mobility needs one")
        }
        let blackouts = moves.compactMap(\.report?.blackout)
        for index in outcome.handoffs.indices where outcome.handoffs[index].user == user {
            let handoff = outcome.handoffs[index]
            let blackout = handoff.migration.flatMap { outcome.migrations[$0].report?.blackout }
            outcome.handoffs[index].interruption = recording.interruption(
                [handoff.outage] + (blackout.map { [$0] } ?? []))
        }
        let all = recording.summary("all", .min, .max)
        (record.requests, record.answered, record.late) = (all.requests, all.requests - all.unanswered, all.late)
        record.largestGap = recording.largestGap(outside: outages + blackouts)
        let pauses = outages + blackouts, places = places(of: user, outcome)
        func isPause(_ instant: Int64) -> Bool { pauses.contains { $0.contains(instant) } }
        func isFar(_ instant: Int64) -> Bool { places.far.contains { $0.contains(instant) } }
        record.latency = [
            recording.summary("near") { !isPause($0) && !isFar($0) },
            recording.summary("far") { !isPause($0) && isFar($0) },
            recording.summary("handoff", ofThoseDue: isPause),
        ]
        record.verdicts.append(
            Verdict(
                "answers throughout", record.answered > 0 && record.largestGap <= options.longestGap,
                "\(record.answered) of \(record.requests) answered, longest gap outside handoffs and blackouts "
                    + "\(Int(record.largestGap)) ms of \(Int(options.longestGap)) ms allowed"))
        outcome.users.append(record)
    }

    private func places(of user: Int, _ outcome: MobilityOutcome) -> MobilityPlaces {
        func host(_ point: String) -> String {
            let beside = testbed.topology.accessPoints.first { $0.name == point }?.host
            return beside.flatMap { testbed.topology.host($0)?.name } ?? ""
        }
        let handoffs = outcome.handoffs.filter { $0.user == user }
        let arrived = outcome.migrations.filter { $0.user == user && $0.end == .arrived }
        return MobilityPlaces(
            start: handoffs.first.map { host($0.from) } ?? "",
            devices: handoffs.map { ($0.joinedAt, host($0.to)) },
            services: arrived.compactMap { migration in
                migration.report.map {
                    ($0.blackout.upperBound, testbed.topology.host(migration.destination)?.name ?? "")
                }
            })
    }
}

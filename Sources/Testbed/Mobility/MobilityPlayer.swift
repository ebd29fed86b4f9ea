// Plays the users' events in time: hands devices over, starts, triggers and cancels migrations, notes what happened.
import Agent
import LinuxKernel
import Migration

actor MobilityPlayer {
    /// A user while the traces are played.
    private struct User {
        var mover: ServiceMover
        /// Index of the access point.
        var site: Int
        let container: String
        /// Index of the migration that is under way.
        var migration: Int?
        /// Its identifier at the source's agent, as soon as it is known.
        var id: String?
        /// What was asked for before the identifier was known.
        var early: [ServiceMover.Action] = []
        var zoneAt: Double?
        /// Index of the last handoff.
        var handoff: Int?
        var radio: Task<Void, Never>?
    }

    private let run: MobilityRun
    private let events: [(user: Int, event: MobilityEvent)]
    private let progress: @Sendable (String) -> Void
    private var users: [User]
    private var outcome = MobilityOutcome()
    private var tasks: [Task<Void, Never>] = []
    private var failure: (any Error)?
    /// Monotonic nanoseconds of the trace's instant 0; leaps when a stretch is left out.
    private var origin: Int64 = 0
    /// When something last happened, seconds of the trace.
    private var last: Double

    init(
        _ run: MobilityRun, places: [Int], containers: [String], progress: @escaping @Sendable (String) -> Void
    ) {
        (self.run, self.progress) = (run, progress)
        let topology = run.testbed.topology
        let hosts = topology.accessPoints.map { point in topology.hosts.firstIndex { $0.name == point.host! }! }
        users = zip(places, containers).map {
            User(mover: ServiceMover(run.options.strategy, hosts: hosts, site: $0), site: $0, container: $1)
        }
        let lead = run.options.strategy == .predicted ? run.options.lead : nil
        events = run.traces.enumerated().flatMap { index, trace in
            trace.events(run.sites, run.options.rules, lead: lead).map { (user: index, event: $0) }
        }.sorted { $0.event.time < $1.event.time }
        last = run.traces.map(\.start).min() ?? 0
        origin = monotonicNow() - Int64(last * 1e9)
    }

    private var now: Double { seconds(monotonicNow()) }
    private func seconds(_ instant: Int64) -> Double { Double(instant - origin) / 1e9 }

    func play() async throws -> MobilityOutcome {
        for (user, event) in events {
            try await reach(event.time)
            take(event, user)
        }
        for user in users.indices {
            if let action = users[user].mover.wayEnded() { act(action, user) }
        }
        while !isQuiet { try await wait() }
        for task in tasks { await task.value }
        if let failure { throw failure }
        return outcome
    }

    /// Nothing is under way, and nothing has happened for a while.
    private var isQuiet: Bool { users.allSatisfy { !$0.mover.isMoving } && now - last > run.options.margin }

    /// Waits for an instant of the trace; leaps to shortly before it while all is quiet.
    private func reach(_ time: Double) async throws {
        while now < time {
            let rest = time - now
            if isQuiet && rest > run.options.margin {
                let leap = rest - run.options.margin
                origin -= Int64(leap * 1e9)
                outcome.skipped += leap
            } else {
                try await wait(at: rest)
            }
        }
    }

    private func wait(at most: Double = 0.05) async throws {
        if let failure { throw failure }
        try await Task.sleep(for: .microseconds(Int64(max(0.0001, min(0.05, most)) * 1e6)))
    }

    // MARK: - Events

    private func take(_ event: MobilityEvent, _ user: Int) {
        last = event.time
        if event.kind == .zoneEntered { users[user].zoneAt = event.time }
        if event.kind == .turnedBack { users[user].zoneAt = nil }
        if event.kind == .handoff { handOff(user, event) }
        let action = users[user].mover.take(event)
        outcome.events.append(PlayedEvent(user: user, event: event, action: action.map(text) ?? ""))
        progress(
            "\(Int(event.time)) s \(run.testbed.topology.userDevices[user].name): \(event.kind.rawValue)"
                + (action.map { ", \(text($0))" } ?? ""))
        if let action { act(action, user) }
        if event.kind == .handoff { users[user].zoneAt = nil }
    }

    private func handOff(_ user: Int, _ event: MobilityEvent) {
        let points = run.testbed.topology.accessPoints
        let (old, new) = (points[users[user].site], points[event.target!])
        users[user].site = event.target!
        let index = outcome.handoffs.count
        outcome.handoffs.append(MobilityHandoff(user: user, time: event.time, from: old.name, to: new.name))
        users[user].handoff = index
        let (testbed, reconnection) = (run.testbed, run.options.reconnection)
        let device = testbed.topology.userDevices[user]
        let before = users[user].radio
        let radio = Task {
            await before?.value
            do {
                let handoff = try await testbed.attach(device, to: new, reconnection: reconnection)
                joined(index, handoff)
            } catch { failure = failure ?? error }
        }
        users[user].radio = radio
        tasks.append(radio)
    }

    private func joined(_ index: Int, _ handoff: Handoff) {
        let user = users[outcome.handoffs[index].user]
        (outcome.handoffs[index].leftAt, outcome.handoffs[index].joinedAt) = (handoff.leftAt, handoff.joinedAt)
        outcome.handoffs[index].wasLocal = user.mover.at == user.mover.userHost
    }

    // MARK: - Migrations

    private func act(_ action: ServiceMover.Action, _ user: Int) {
        switch action {
        case .start(let host, let policy): start(user, to: host, policy)
        case .handOver, .cancel:
            guard let migration = users[user].migration else { return }
            if action == .handOver { belongs(migration, user) }
            if let id = users[user].id {
                tasks.append(Task { await ask(action, id, migration) })
            } else {
                users[user].early.append(action)
            }
        }
    }

    /// A migration belongs to the user's last handoff, unless another one has arrived for that.
    private func belongs(_ migration: Int, _ user: Int) {
        guard let handoff = users[user].handoff else { return }
        if let other = outcome.handoffs[handoff].migration, outcome.migrations[other].end == .arrived { return }
        outcome.handoffs[handoff].migration = migration
        outcome.migrations[migration].handoffAt = outcome.handoffs[handoff].time
    }

    private func ask(_ action: ServiceMover.Action, _ id: String, _ migration: Int) async {
        let client = AgentClient(host: outcome.migrations[migration].source)
        do {
            if action == .cancel {
                try await client.cancel(id)
            } else {
                let info = try await client.handOver(id)
                outcome.migrations[migration].stateAtHandoff = info.progress.state.rawValue
            }
        } catch {
            // It may be over by now; otherwise its own end tells why.
            outcome.migrations[migration].error = "\(action == .cancel ? "cancelling" : "handing over"): \(error)"
        }
    }

    private func start(_ user: Int, to host: Int, _ policy: HandoverPolicy) {
        let hosts = run.testbed.topology.hosts
        let index = outcome.migrations.count
        outcome.migrations.append(
            MobilityMigration(
                user: user, container: users[user].container, source: hosts[users[user].mover.at].name,
                destination: hosts[host].name, handover: policy, decidedAt: now, zoneAt: users[user].zoneAt))
        (users[user].migration, users[user].id, users[user].early) = (index, nil, [])
        if policy == .whenReady { belongs(index, user) }
        tasks.append(Task { await migrate(user, index, policy) })
    }

    private func migrate(_ user: Int, _ index: Int, _ policy: HandoverPolicy) async {
        let migration = outcome.migrations[index]
        var plan = run.options.plan
        plan.handover = policy
        let client = AgentClient(host: migration.source)
        do {
            let id = try await client.migrate(migration.container, to: migration.destination, plan: plan)
            users[user].id = id
            for action in users[user].early { await ask(action, id, index) }
            ended(index, try await end(of: id, client, user))
        } catch {
            outcome.migrations[index].error = "\(error)"
        }
        (users[user].migration, users[user].id) = (nil, nil)
        last = now
        let arrived = outcome.migrations[index].end == .arrived
        if let action = users[user].mover.ended(arrived: arrived) { act(action, user) }
    }

    private func end(of id: String, _ client: AgentClient, _ user: Int) async throws -> MigrationInfo {
        let deadline = monotonicNow() + Int64(run.options.patience * 1e9)
        while monotonicNow() < deadline {
            let info = try await client.migration(id)
            if info.isOver { return info }
            // The agent shares its processors with what is measured: seldom asked while it waits for the handoff.
            try await Task.sleep(for: .milliseconds(users[user].mover.awaitsTrigger ? 500 : 50))
        }
        try await client.cancel(id)
        return try await client.wait(for: id)
    }

    private func ended(_ index: Int, _ info: MigrationInfo) {
        var migration = outcome.migrations[index]
        migration.report = info.report
        if let report = info.report {
            (migration.end, migration.error) = (.arrived, nil)
            migration.releasedAt = seconds(report.releasedAt)
            if let handoff = migration.handoffAt, migration.handover == .atTrigger {
                migration.wasReady = report.isReady(at: (handoff - seconds(report.decidedAt)) * 1000)
            }
        } else if users[migration.user].mover.isCancelled {
            (migration.end, migration.error) = (.cancelled, nil)
        } else {
            migration.error = info.error.map { "\($0)" } ?? "it ended in state \(info.progress.state.rawValue)"
        }
        outcome.migrations[index] = migration
    }

    private func text(_ action: ServiceMover.Action) -> String {
        switch action {
        case .start(let host, let policy): "migration to \(run.testbed.topology.hosts[host].name) \(policy.rawValue)"
        case .handOver: "handover"
        case .cancel: "cancelled"
        }
    }
}

extension MigrationReport {
    /// Whether the technique had done at an instant, once, what it does before the handover; nil: it does nothing.
    fileprivate func isReady(at milliseconds: Double) -> Bool? {
        plan.technique.copy == .none ? nil : readyAt.map { $0 <= milliseconds } ?? false
    }
}

// The migrations that this agent takes part in.
import Glibc
import LinuxKernel
import Logging
import Migration
import Synchronization

/// Books of migrations: those that run, and the last ones that ended.
public final class Migrations: Sendable {
    private struct Entry {
        let id: String
        let direction: MigrationDirection
        let container: String
        let peer: String
        let plan: MigrationPlan
        let startedAt: String
        let control: MigrationControl
        var result: Result<MigrationReport?, MigrationError>?

        var info: MigrationInfo {
            var info = MigrationInfo(
                id: id, direction: direction, container: container, peer: peer, plan: plan, startedAt: startedAt,
                isOver: result != nil, progress: control.progress)
            switch result {
            case .success(let report)?: info.report = report
            case .failure(let error)?: info.error = AgentError(error)
            case nil: break
            }
            return info
        }
    }

    /// Ended migrations that are remembered, and those among them whose report keeps its time series.
    private static let memory = 100, seriesMemory = 10

    private let entries = Mutex<[Entry]>([])
    private let containers: ContainerStore
    private let logger: Logger

    init(_ containers: ContainerStore, logger: Logger) {
        self.containers = containers
        self.logger = logger
    }

    /// Enters a migration; the container's name is taken until `end`.
    func begin(_ id: String, _ direction: MigrationDirection, container: String, peer: String, plan: MigrationPlan)
        throws(AgentError) -> MigrationControl
    {
        if entries.withLock({ $0.contains { $0.id == id } }) {
            throw AgentError(.nameTaken, "a migration \(id) is known on host \(containers.layout.hostName) already")
        }
        let words = direction == .outgoing ? "moving to \(peer)" : "arriving from \(peer)"
        try containers.hold(container, words)
        let control = MigrationControl(gate: containers.gate(of: container))
        entries.withLock { entries in
            entries.append(
                Entry(
                    id: id, direction: direction, container: container, peer: peer, plan: plan, startedAt: timestamp(),
                    control: control))
            let over = entries.indices.filter { entries[$0].result != nil }
            if over.count > Self.memory { entries.remove(at: over[0]) }
        }
        logger.info("migration \(id): container \(container) \(words), \(plan.technique.rawValue)")
        return control
    }

    func end(_ id: String, _ result: Result<MigrationReport?, MigrationError>) {
        let entry = entries.withLock { entries in entries.last { $0.id == id && $0.result == nil } }
        guard let entry else { return logger.error("migration \(id) ended and was not known") }
        entry.control.finish()
        // Before anybody can see that it has ended, and asks for the container.
        containers.release(entry.container)
        entries.withLock { entries in
            guard let index = entries.lastIndex(where: { $0.id == id }) else { return }
            entries[index].result = result
            let over = entries.indices.filter { entries[$0].result != nil }
            for old in over.dropLast(Self.seriesMemory) {
                if case .success(let report?) = entries[old].result {
                    entries[old].result = .success(report.withoutSeries)
                }
            }
        }
        switch result {
        case .success: logger.info("migration \(id): container \(entry.container) moved")
        case .failure(let error): logger.warning("migration \(id): \(error.kind.rawValue): \(error.message)")
        }
    }

    /// All of them, without the time series of their reports: those of a hundred migrations are many megabytes.
    public func all() -> [MigrationInfo] {
        entries.withLock { entries in
            entries.map { entry in
                var info = entry.info
                info.report = info.report?.withoutSeries
                return info
            }
        }
    }

    public func info(_ id: String) throws(AgentError) -> MigrationInfo { try find(id).info }

    /// The migration that a container takes part in.
    func active(of container: String) -> String? {
        entries.withLock { $0.last { $0.container == container && $0.result == nil }?.id }
    }

    /// Waits until an arrival that has released the container is over. Who heard of it at the source may ask for the
    /// container here while this host still tidies up and has not recorded it, which takes some milliseconds, or seconds
    /// where others take the processors.
    func awaitEnd(ofReleased container: String) {
        awaitEnd(seconds: 10) {
            $0.container == container && [.released, .retired].contains($0.control.progress.state)
        }
    }

    /// Waits until an arrival of this container from this host has ended. The removal of what it made takes a moment;
    /// ten seconds leave the source, which waits thirty for the answer to its offer, the time to hear of a refusal.
    func awaitEnd(ofArrival container: String, from peer: String) {
        awaitEnd(seconds: 10) {
            $0.container == container && $0.peer == peer && $0.control.progress.state != .inDoubt
        }
    }

    private func awaitEnd(seconds: Int, ofArrivals isMeant: (Entry) -> Bool) {
        for _ in 0..<seconds * 500 {
            let isThere = entries.withLock { entries in
                entries.contains { $0.direction == .incoming && $0.result == nil && isMeant($0) }
            }
            if !isThere { return }
            usleep(2000)
        }
    }

    func cancel(_ id: String) throws(AgentError) -> MigrationInfo { try change(id) { $0.cancel() } }

    func handOver(_ id: String) throws(AgentError) -> MigrationInfo { try change(id) { $0.triggerHandover() } }

    func resolve(_ id: String, _ keep: MigrationControl.Resolution) throws(AgentError) -> MigrationInfo {
        if try find(id).control.progress.state != .inDoubt {
            throw AgentError(
                .wrongState, "migration \(id) is not in doubt", advice: "only a migration in doubt can be resolved")
        }
        return try change(id) { $0.resolve(keep) }
    }

    private func change(_ id: String, _ change: (MigrationControl) -> Void) throws(AgentError) -> MigrationInfo {
        let entry = try find(id)
        if entry.result != nil {
            throw AgentError(.wrongState, "migration \(id) has ended", advice: "`apus ps --all` shows how")
        }
        change(entry.control)
        return entry.info
    }

    private func find(_ id: String) throws(AgentError) -> Entry {
        let found = entries.withLock { $0.last { $0.id == id } }
        guard let found else { throw AgentError(.migrationUnknown, "there is no migration \(id) on this host") }
        return found
    }
}

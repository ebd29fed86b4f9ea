// The migrations that this agent takes part in.
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

    /// Ended migrations that are remembered.
    private static let memory = 100

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
        let words = direction == .outgoing ? "moving to \(peer)" : "arriving from \(peer)"
        try containers.hold(container, words)
        let control = MigrationControl()
        entries.withLock { entries in
            entries.append(
                Entry(
                    id: id, direction: direction, container: container, peer: peer, plan: plan, startedAt: timestamp(),
                    control: control))
            let over = entries.filter { $0.result != nil }
            if over.count > Self.memory { entries.removeAll { $0.id == over[0].id } }
        }
        logger.info("migration \(id): container \(container) \(words), \(plan.technique.rawValue)")
        return control
    }

    func end(_ id: String, _ result: Result<MigrationReport?, MigrationError>) {
        let entry = entries.withLock { entries -> Entry? in
            guard let index = entries.lastIndex(where: { $0.id == id && $0.result == nil }) else { return nil }
            entries[index].result = result
            return entries[index]
        }
        guard let entry else { return logger.error("migration \(id) ended and was not known") }
        containers.release(entry.container)
        switch result {
        case .success: logger.info("migration \(id): container \(entry.container) moved")
        case .failure(let error): logger.warning("migration \(id): \(error.kind.rawValue): \(error.message)")
        }
    }

    public func all() -> [MigrationInfo] { entries.withLock { $0.map(\.info) } }

    public func info(_ id: String) throws(AgentError) -> MigrationInfo { try find(id).info }

    /// The migration that a container takes part in.
    func active(of container: String) -> String? {
        entries.withLock { $0.last { $0.container == container && $0.result == nil }?.id }
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

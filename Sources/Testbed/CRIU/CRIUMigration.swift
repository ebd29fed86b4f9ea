// Migration by CRIU, the baseline: runc checkpoint, copy over the backhaul, runc restore, with the containers, the
// network and the handover of addresses that Apus's own techniques use; before it nothing, rounds of pre-dumps, or a
// pre-dump at each change. A measure, no feature: it wants both hosts on this machine.
import Agent
import FoundationEssentials
import LinuxKernel
import Migration

/// Moves containers of a testbed by CRIU.
public struct CRIUMigration: Sendable {
    let criu: CRIU
    /// What happens before the checkpoint, and by which rules; cold: nothing.
    let plan: MigrationPlan

    public init(_ criu: CRIU, _ plan: MigrationPlan = MigrationPlan(technique: .cold)) {
        (self.criu, self.plan) = (criu, plan)
    }

    /// Moves a container that runs under an agent to another host, whose agent has it then.
    ///
    /// The agents take no part and must not be told to migrate it meanwhile. What fails before the destination's copy
    /// runs ends with the container running at the source again, if need be restored there from the same images.
    /// - Parameter triggerAfter: seconds from the decision to the checkpoint; nil: as soon as the destination is ready.
    /// - Returns: a report whose figures mean what they mean for Apus's techniques. `frozenAt` is the instant at which
    ///   CRIU took hold of the container, `releasedAt` that at which it runs again with its network open.
    public func migrate(
        _ container: String, from source: EdgeHost, to destination: EdgeHost, triggerAfter: Double? = nil
    ) async throws -> MigrationReport {
        let agents = (AgentClient(host: source.name), AgentClient(host: destination.name))
        let info = try await agents.0.container(container)
        guard info.isRunning else { throw TestbedError("container \(container) does not run on \(source.name)") }
        let from = try CRIUHost(source, try await agents.0.host().layout, container: container, criu)
        let to = try CRIUHost(destination, try await agents.1.host().layout, container: container, criu)
        // One thread after another has it: never two at once.
        nonisolated(unsafe) let move = CRIUMove(info.record, pid: info.pid, from: from, to: to, plan)
        let trigger = triggerAfter.map { move.decidedAt + Int64($0 * 1e9) }
        return try await withTaskCancellationHandler {
            try await onOwnThread("criu-move") {
                try move.stage()
                try move.copyAhead(trigger: trigger)
                return try move.handOver(waited: trigger != nil)
            }
        } onCancel: {
            move.cancel()
        }
    }
}

/// Runs what blocks on a thread of its own: Swift's pool has only as many as the machine has processors.
private func onOwnThread<T: Sendable>(
    _ name: String, _ body: @escaping @Sendable () throws -> T
) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        do {
            try OwnThread.start(name) { continuation.resume(with: Result { try body() }) }
        } catch { continuation.resume(throwing: error) }
    }
}

// Cold migration by CRIU, the baseline: runc checkpoint, copy over the backhaul, runc restore, with the containers,
// the network and the handover of addresses that Apus's own techniques use. A measure, no feature: it wants both hosts
// on this machine.
import Agent
import FoundationEssentials
import LinuxKernel
import Migration

/// Moves containers of a testbed by CRIU.
public struct CRIUCold: Sendable {
    let criu: CRIU
    public init(_ criu: CRIU) { self.criu = criu }

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
        nonisolated(unsafe) let move = CRIUMove(info.record, pid: info.pid, from: from, to: to)
        try await onOwnThread("criu-stage") { try move.stage() }
        if let triggerAfter {
            let left = triggerAfter - Double(monotonicNow() - move.decidedAt) / 1e9
            do { try await Task.sleep(for: .seconds(max(0, left))) } catch {
                try await onOwnThread("criu-undo") { throw move.undoing(error) }
            }
        }
        return try await onOwnThread("criu-move") { try move.handOver(waited: triggerAfter != nil) }
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

// The source's side of a migration: from the offer to the end of its copy. docs/protocol.md has the states.
//
// Everything runs on the one thread that calls `run`, which must be the session's own: ptrace belongs to it.
import Containers
import Engine
import Glibc
import LinuxKernel

/// Moves one container away.
public final class SourceSession {
    private let id: String
    private let container: RunningContainer
    private let host: SessionHost
    private let destination: String
    private let plan: MigrationPlan
    private let control: MigrationControl
    /// nil once `run` has it.
    private var connection: FileDescriptor?
    private let decidedAt = monotonicNow()
    /// Seconds that the destination has to answer the offer.
    var patience: Int64 = 30
    /// Where it stood when `run` returned.
    private(set) var state = SessionState.offered

    /// A migration of `container` over a connection to the destination's agent.
    ///
    /// - Parameter destination: where that agent listens.
    public init(
        id: String, container: RunningContainer, host: SessionHost, destination: String, plan: MigrationPlan,
        control: MigrationControl, connection: FileDescriptor
    ) {
        (self.id, self.container, self.host, self.destination) = (id, container, host, destination)
        (self.plan, self.control, self.connection) = (plan, control, connection)
    }

    /// Runs the migration to its end. Once.
    ///
    /// - Throws: why it did not happen; the source then runs on, unless it is `MigrationError.inDoubt`.
    public func run() throws -> MigrationReport {
        let source = try SourceContext(
            id: id, container: container, host: host, destination: destination, plan: plan, control: control,
            connection: connection.take()!, decidedAt: decidedAt)
        defer {
            control.gate.open()
            state = source.state
            source.close()
        }
        let copier = Copier(
            plan, source.process, source.layout, source.connection, control, decidedAt: decidedAt
        ) { [unowned source] in try source.checkCancelled() }
        let strategy = copier.strategy(plan, HandoverTrigger(plan, control), PageFaultTarget(source))
        let staging = Staging(source, copier)
        let handover = Handover(source, copier, strategy, staging)
        // The connection asks it, as long as it waits for something.
        defer { withExtendedLifetime(handover) {} }
        let commit = Commit(source, copier, handover)
        do {
            source.connection.waitsForTrigger = plan.handover == .atTrigger
            try source.connection.startBeating()
            try source.phase("negotiate") { staging.clocks = try Negotiation(source).run(patience: patience) }
            try source.phase("stage") { try staging.run() }
            source.enter(.copying)
            try source.phase("copy") { try strategy.run() }
            var postponement = Postponement(source, copier, handover)
            while true {
                do {
                    try source.phase("freeze") { try handover.run() }
                    break
                } catch let reason as Postponed { try postponement.wait(reason) }
            }
            try commit.finish()
        } catch  where source.isPromised {
            try commit.settle(after: error)
        } catch {
            // Before the promise: the source runs on as if nothing had been.
            let cause = source.explained(source.connection.cause(of: error))
            handover.runOn()
            source.enter(.aborted)
            source.connection.sendAbort(cause)
            throw cause
        }
        return source.report
    }
}

extension PageFaultTarget {
    init(_ source: SourceContext) {
        self.init(
            pid: source.container.pid, cgroupFolders: source.journal.header.cgroup?.folders ?? [],
            host: source.host.name,
            wake: [
                source.connection.descriptor.number, source.control.wakeup?.number ?? -1, source.process.pidfd.number,
            ])
    }
}

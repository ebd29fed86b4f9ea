// The destination's side of a migration: a stub in a container, turned into the process as its state arrives.
//
// Everything runs on the one thread that calls `run`, which must be the session's own: ptrace belongs to it.
import Foundation
import LinuxKernel

/// What the agent does when a container has arrived, and how it answers questions about migrations.
public protocol DestinationDelegate: AnyObject, Sendable {
    /// Waits until an earlier arrival of the container from the same host has ended. Its source has given it up, or
    /// would not offer the container again; what was made here is being removed.
    func awaitEnd(ofArrival container: String, from host: String)
    /// A migration is being offered; throws to refuse it.
    func willReceive(migration: String, container: String, from host: String, plan: MigrationPlan) throws
        -> MigrationControl
    /// The container runs here now.
    func didReceive(migration: String, _ container: RunningContainer, from host: String)
    /// A migration that was accepted ended before the container ran here.
    func didFail(migration: String, _ error: any Error)
}

extension DestinationDelegate {
    public func awaitEnd(ofArrival container: String, from host: String) {}
}

/// Receives one container.
public final class DestinationSession {
    private let host: SessionHost
    let connection: Connection
    private let delegate: any DestinationDelegate

    public init(host: SessionHost, connection: FileDescriptor, delegate: any DestinationDelegate) throws {
        self.host = host
        self.connection = try Connection(connection, as: .destination)
        self.connection.limit(seconds: Connection.longestPreparation)
        self.delegate = delegate
    }

    /// Serves the connection to its end: a migration, or a question about one.
    public func run() {
        // Counts as one of the host's sessions until its failure has been told.
        var place: SessionBounds.Place?
        defer { withExtendedLifetime(place) {} }
        do {
            place = try SessionBounds.shared.enter()
            let frame = try connection.receive()
            switch frame.kind {
            case .offer:
                let offer: Checked<WireOffer> = try frame.message()
                connection.peer = offer.sourceHost
                try connection.startBeating()
                connection.silenceLimit = Connection.usualSilence
                try receive(offer)
            case .inquiry:
                // One that asks and leaves without a word asks again.
                connection.limit(seconds: 30)
                try Inquiry.answer(try frame.message(), over: connection, journals: host.journals, host.layout)
            default: throw connection.unexpected(frame, "an offer")
            }
        } catch { say(connection.cause(of: error)) }
    }

    /// Tells the source that nothing came of it.
    ///
    /// - Returns: why.
    @discardableResult private func say(_ error: any Error) -> MigrationError {
        let reason = MigrationError(error, on: host.name)
        if reason.kind == .refused {
            connection.sendRefusal(reason, of: host.name)
        } else {
            connection.sendAbort(reason, neverRan: true)
        }
        return reason
    }

    // ---- A migration ---------------------------------------------------------------------------------------

    private func receive(_ offer: Checked<WireOffer>) throws {
        // What is known of it here would else be said of another migration, too.
        guard Recovery.trace(of: offer.migration, in: host.journals) == nil else {
            throw MigrationError.refused(["\(host.name) knows a migration \(offer.migration) already"])
        }
        delegate.awaitEnd(ofArrival: offer.container, from: offer.sourceHost)
        let reasons = try Admission(offer, host).refusals()
        if !reasons.isEmpty { throw MigrationError.refused(reasons) }
        let plan = try JSONDecoder().decode(MigrationPlan.self, from: offer.plan)
        connection.waitsForTrigger = plan.handover == .atTrigger
        let control = try delegate.willReceive(
            migration: offer.migration, container: offer.container, from: offer.sourceHost, plan: plan)
        let context: DestinationContext
        do { context = try DestinationContext(host, connection, offer, plan, control) } catch {
            control.update { $0.state = .aborted }
            delegate.didFail(migration: offer.migration, say(connection.cause(of: error)))
            return
        }
        defer { context.close() }
        let container = ArrivingContainer(context)
        let arrival = Arrival(context, container, delegate)
        do {
            try accept(context)
            try arrival.run()
        } catch {
            ThreadPriority.normal.apply()
            // It runs here whatever happened after.
            if arrival.isReleased {
                return delegate.didReceive(
                    migration: offer.migration, container.running, from: offer.sourceHost)
            }
            fail(error, context, container)
        }
    }

    private func accept(_ context: DestinationContext) throws {
        var accepted = WireAccepted()
        (accepted.host, accepted.boot, accepted.address) = (host.name, try bootIdentity(), host.address)
        accepted.identity = try host.layout.identity()
        try connection.send(.accepted, accepted)
        context.control.update { $0.state = .accepted }
        FaultPoint.reach(.destinationAccepted)
    }

    /// The container never ran here, and never will.
    private func fail(_ error: any Error, _ context: DestinationContext, _ container: ArrivingContainer) {
        let (offer, journal) = (context.offer, context.journal)
        let error = connection.cause(of: error)
        var way = WayBack(of: offer.container, host.log)
        way.step("giving its frames back") { try container.giveFramesBack() }
        container.stub?.kill()
        context.undo(&way)
        if context.mayBePromised { Recovery.remember(journal.header, .aborted, in: host.journals) }
        way.step("noting that it never ran here") { try journal.write(.resolved(.aborted)) }
        // What could not be removed is left to the guard, by the journal.
        if way.failures.isEmpty { way.step("settling its journal") { try journal.settle() } }
        context.control.update { $0.state = .aborted }
        delegate.didFail(migration: offer.migration, say(error))
        guard context.mayBePromised else { return }
        // A source that has promised asks what became of it. One that gives up says so, and does not ask; one whose
        // agent has died may have settled by its guard, and is asked.
        if connection.hearsAbort(seconds: 3) { return Recovery.forget(offer.migration, in: host.journals) }
        do { try Recovery.forgetIfUnasked(journal.header, host) } catch {
            host.log("migration \(offer.migration): what it came to is remembered for a week: \(error)")
        }
    }
}

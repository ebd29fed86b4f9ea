// What the parts of a migration's destination share: what was offered, and what has to be undone if it fails.
import Containers
import Foundation
import Glibc
import LinuxKernel

/// A container that is being received. It has its journal, and its guard, for as long as it is.
final class DestinationContext {
    let host: SessionHost
    let connection: Connection
    let offer: Checked<WireOffer>
    let plan: MigrationPlan
    let control: MigrationControl
    let journal: Journal
    private let guardian: GuardProcess?
    let steps = StepClock()
    /// The source may have promised not to run: it has heard that its frames are held here.
    var mayBePromised = false
    /// Undone in the reverse order when the migration fails.
    private var made: [(what: String, undo: () throws -> Void)] = []

    init(
        _ host: SessionHost, _ connection: Connection, _ offer: Checked<WireOffer>, _ plan: MigrationPlan,
        _ control: MigrationControl
    ) throws {
        (self.host, self.connection, self.offer, self.plan, self.control) = (host, connection, offer, plan, control)
        (journal, guardian) = try host.openJournal(
            JournalHeader(
                migration: offer.migration, role: .destination, container: offer.container, pid: 0, startTime: 0,
                peer: offer.sourceAddress, agent: getpid(), network: nil, cgroup: nil, peerName: offer.sourceHost,
                plan: plan, secret: SessionSecret(offer.secret)))
        connection.whileWaiting = { [control] in if control.isCancelled { throw MigrationError.cancelled } }
    }

    func close() { guardian?.end() }

    func awaitGuard() throws { try guardian?.awaitReadiness() }

    /// Notes how something that is about to be made is undone.
    func willMake(_ what: String, undo: @escaping () throws -> Void) { made.append((what, undo)) }

    /// Removes everything that was made.
    func undo(_ way: inout WayBack) { for (what, undo) in made.reversed() { way.step(what, undo) } }

    /// What another host calls itself, and where its agent listens.
    var source: Peer { Peer(name: offer.sourceHost, address: PeerAddress(offer.sourceAddress)) }
}

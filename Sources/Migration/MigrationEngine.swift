// The seam between an agent, which knows containers and keeps their books, and what moves them.
import Containers
import LinuxKernel

/// Moves containers. An agent has one; every call runs on a thread of its own and may block.
public protocol MigrationEngine: Sendable {
    /// Moves a container of this host to the agent that listens at `address`. Returns when the destination serves it
    /// and this host's copy is gone.
    ///
    /// In doubt it says so in the progress's state and stays in this call until `control.resolution` is set.
    /// - Throws: `MigrationError`; the source runs on, unless its kind is `inDoubt`.
    func migrate(
        _ id: String, container: ContainerRecord, to address: PeerAddress, plan: MigrationPlan,
        control: MigrationControl
    ) throws -> MigrationReport

    /// Serves one connection of another agent, from its first byte to its end.
    func serve(connection: FileDescriptor) throws

    /// Takes up what an earlier agent of this host left behind: plays undo lists, reads journals. Called once, before
    /// anything else.
    func recover() throws
}

/// What the engine asks of the agent it works for. Any thread may call.
public protocol MigrationHost: AnyObject, Sendable {
    var layout: HostLayout { get }
    var runtime: any ContainerRuntime { get }
    /// Where other agents reach this one.
    var migrationAddress: PeerAddress { get }
    /// The probe made when the agent started.
    var facts: KernelFacts { get }
    /// What this host lets containers have that come from others.
    var allowances: Allowances { get }
    /// What a container's network is attached to here while it moves; nil if this host has no bridge, or no port of it
    /// that leads to the peer.
    func attachment(for container: String, towards peer: Peer) -> NetworkAttachment?
    func record(of container: String) throws -> ContainerRecord?
    /// Remembers a container as this host's own.
    func keep(_ record: ContainerRecord) throws
    /// Forgets a container that is another host's now, and removes its folder.
    func forget(_ container: String) throws
    /// Enters a migration that the agent does not know yet into its books: one towards this host, or one found in a
    /// journal. The container's name is taken until `end`.
    ///
    /// In doubt, the engine says so in the progress's state and waits for `MigrationControl.resolution`.
    /// - Throws: `MigrationError` (refused) if the name is taken.
    func begin(_ id: String, _ direction: MigrationDirection, container: String, peer: String, plan: MigrationPlan)
        throws
        -> MigrationControl
    /// Waits until an arrival of this container from this host has ended; not for ever.
    func awaitEnd(ofArrival container: String, from peer: String)
    /// - Parameter result: the report where there is one (the source makes it).
    func end(_ id: String, _ result: Result<MigrationReport?, MigrationError>)
}

/// This host's part in a migration.
public enum MigrationDirection: String, Codable, Sendable { case outgoing, incoming }

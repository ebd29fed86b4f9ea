// The engine behind an agent: Apus's own sessions, towards other hosts and from them.
import Containers
import Engine
import Foundation
import LinuxKernel

/// Moves containers by this project's own capture, mirroring and restore.
public struct ApusEngine: MigrationEngine {
    private let agent: any MigrationHost
    private let log: @Sendable (String) -> Void

    /// - Parameter log: takes what sessions have to say that nobody waits to hear.
    public init(_ agent: any MigrationHost, log: @escaping @Sendable (String) -> Void) {
        (self.agent, self.log) = (agent, log)
    }

    private var host: SessionHost {
        var host = SessionHost(
            layout: agent.layout, runtime: agent.runtime, address: agent.migrationAddress.description
        ) { [agent] in
            agent.attachment(for: $0, towards: $1)
        }
        host.facts = agent.facts
        host.allowances = agent.allowances
        host.guarding = GuardCommand()
        host.log = log
        return host
    }

    public func migrate(
        _ id: String, container: ContainerRecord, to address: PeerAddress, plan: MigrationPlan,
        control: MigrationControl
    ) throws -> MigrationReport {
        guard let state = try agent.runtime.state(container.name), [.running, .paused].contains(state.status) else {
            throw MigrationError(.refused, "container \(container.name) does not run", advice: "start it first")
        }
        let connection = try address.connectToAgent()
        var network: ContainerNetworkRecord?
        if let spec = container.network, var attachment = container.attachment {
            // Its record may name the port to the host that it came from.
            guard let towards = agent.attachment(for: container.name, towards: Peer(address: address)) else {
                throw MigrationError(
                    .refused, "this host knows no port of its bridge that leads to \(address)",
                    advice: "start its agent with --bridge and --backhaul, or with port= of the --peer")
            }
            attachment.backhaul = towards.backhaul
            network = ContainerNetworkRecord(spec: try spec.current(of: state.pid), attachment: attachment)
        }
        let session = try SourceSession(
            id: id,
            container: RunningContainer(
                name: container.name, pid: state.pid, rootfs: agent.layout.container(container.name).rootfs,
                network: network), host: host,
            destination: address.description, plan: plan, control: control, connection: connection)
        let report = try session.run()
        try agent.forget(container.name)
        return report
    }

    /// What a container holds, and what is in the way of moving it, in the words in which a migration would refuse it.
    public static func inspect(_ container: ContainerRecord, pid: Int32, for agent: any MigrationHost) throws
        -> InspectReport
    {
        var network: ContainerNetworkRecord?
        if let spec = container.network, let attachment = container.attachment {
            network = ContainerNetworkRecord(spec: try spec.current(of: pid), attachment: attachment)
        }
        let running = RunningContainer(
            name: container.name, pid: pid, rootfs: try agent.layout.container(container.name).rootfs, network: network)
        return try ObstacleSearch.inspect(running, ApusEngine(agent) { _ in }.host)
    }

    public func serve(connection: FileDescriptor) throws {
        let books = IncomingBooks(agent)
        try DestinationSession(host: host, connection: connection, delegate: books).run()
    }

    public func recover() throws { try Recovery.recover(host: host, agent: agent) }
}

/// Enters what arrives into the agent's books.
private final class IncomingBooks: DestinationDelegate {
    private let agent: any MigrationHost

    init(_ agent: any MigrationHost) { self.agent = agent }

    func awaitEnd(ofArrival container: String, from host: String) {
        agent.awaitEnd(ofArrival: container, from: host)
    }

    func willReceive(migration: String, container: String, from host: String, plan: MigrationPlan) throws
        -> MigrationControl
    {
        try agent.begin(migration, .incoming, container: container, peer: host, plan: plan)
    }

    func didReceive(migration: String, _ container: RunningContainer, from host: String) {
        do {
            try agent.keep(try ContainerRecord.arrived(container.name, container.network, from: host, agent.layout))
            agent.end(migration, .success(nil))
        } catch {
            agent.end(
                migration,
                .failure(MigrationError(.failed, "the container runs here, but could not be recorded: \(error)")))
        }
    }

    func didFail(migration: String, _ error: any Error) {
        agent.end(migration, .failure(error as? MigrationError ?? MigrationError(.failed, "\(error)")))
    }
}

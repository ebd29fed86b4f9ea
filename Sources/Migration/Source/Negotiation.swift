// The offer: what the destination has to know to say whether it can take the container, and its answer.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel
import Memory

/// Offers a container to its destination.
struct Negotiation {
    private let source: SourceContext

    init(_ source: SourceContext) { self.source = source }

    /// - Parameter patience: seconds that the destination has to answer the offer.
    /// - Returns: how the destination's clocks differ.
    func run(patience: Int64) throws -> HostClocks {
        let connection = source.connection
        source.enter(.offered)
        let offer = try makeOffer()
        try connection.send(.offer, offer)
        // Until it knows what the connection is for, the other side says nothing.
        connection.silenceLimit = Connection.usualSilence
        FaultPoint.reach(.sourceOffered)
        let accepted: Checked<WireAccepted> = try connection.limiting(seconds: patience) {
            try connection.expect(.accepted)
        }
        try source.journal.update {
            ($0.peerName, $0.peerBoot, $0.peerIdentity) = (accepted.host, accepted.boot, accepted.identity)
        }
        source.report.destination = accepted.host
        connection.peer = accepted.host
        source.enter(.accepted)
        var clocks = HostClocks()
        try clocks.compare(shared: accepted.boot == offer.boot, container: source.container.pid, over: connection)
        if clocks.ofContainer != .none { source.report.containerOffset = -clocks.ofContainer.monotonic }
        return clocks
    }

    /// - Throws: what is in its way on this side.
    func makeOffer() throws -> WireOffer {
        let (host, container, layout) = (source.host, source.container, source.layout)
        if !host.facts.missing.isEmpty {
            throw MigrationError(
                .refused,
                "\(host.name) lacks \(host.facts.missing.joined(separator: ", ")), without which nothing can be moved "
                    + "from it",
                advice: "`apus doctor` there says why, and what to do")
        }
        try awaitObstacles()
        let config = try source.directory.config()

        var offer = WireOffer()
        offer.protocolVersion = sessionProtocolVersion
        (offer.migration, offer.container) = (source.report.id, container.name)
        (offer.sourceHost, offer.sourceAddress) = (host.name, host.address)
        offer.secret = Data(source.secret.bytes)
        offer.config = Data(config.json())
        if let network = container.network { offer.network = try JSONEncoder().encode(network.spec) }
        (offer.runtime, offer.runtimeVersion) = (host.runtime.kind, try host.runtime.version())
        offer.kernel = try JSONEncoder().encode(host.facts)
        offer.residentBytes = try source.residentPages().bytes
        offer.boot = try bootIdentity()
        offer.pid = Int32(try ProcessStatus(pid: container.pid).numbers("NStgid").last ?? 0)
        offer.plan = try JSONEncoder().encode(source.plan)
        offer.limits = try ResourceLimits.hard(of: container.pid)
        offer.mappedFiles = try WireMappedFile.all(
            of: layout, pid: container.pid, host: host, whileWorking: source.hear)
        return offer
    }

    /// Looks for what is in the way of the migration, and waits as long for what may pass as a handover would.
    private func awaitObstacles() throws {
        let begin = monotonicNow(), limit = Int64(source.plan.postponeLimit * 1e9)
        var looks = 0
        while true {
            try source.layout.refresh()
            let obstacles = try source.search.find()
            if obstacles.isEmpty { return }
            looks += 1
            let waited = monotonicNow() - begin
            // A running process may change between two parts of one look: its maps show a mapping that is being moved
            // twice, an epoll set names a file that has just been closed. What is really there is seen by every look.
            guard obstacles.allSatisfy(\.mayPass) ? waited < limit : looks < 20 else {
                throw MigrationError.refused(obstacles.map(\.description))
            }
            source.control.update { $0.remark = "waiting: \(obstacles[0])" }
            try source.checkCancelled()
            usleep(waited < 100_000_000 ? 5000 : 50_000)
        }
    }
}

/// The version of the session's protocol that this code speaks.
public let sessionProtocolVersion: UInt32 = 7

// What is in the way of moving a container, by everything that its host knows of it: its configuration, its network,
// its cgroup, its processes. `apus inspect` and a migration both look here, and so say the same.
import Containers
import Engine
import LinuxKernel

/// Looks for what keeps a container from being moved now; nothing is stopped.
public final class ObstacleSearch {
    private let container: RunningContainer
    private let host: SessionHost
    private let directory: ContainerDirectory
    private let layout: AddressSpaceReader
    private let config: ContainerConfig
    private let cgroup: CgroupPlace
    private let members: Cgroup
    private let diagnosis: NetlinkSocket?
    private let interprocess: InterprocessObjects?
    private let made: MadeRunState
    /// The process that is going to move, which remembers what was seen of its descriptors; nil: it is only looked at.
    var process: SourceProcess?
    /// What is known of the container around its descriptors.
    let descriptors: DescriptorContext

    /// - Parameters:
    ///   - layout: the first process's, kept up to date by the caller.
    ///   - acceptsInodeNumbers: other inode numbers at the destination are no obstacle for a program that remembers them.
    public init(
        _ container: RunningContainer, _ layout: AddressSpaceReader, _ host: SessionHost,
        acceptsInodeNumbers: Bool = false
    ) throws {
        (self.container, self.layout, self.host) = (container, layout, host)
        directory = try host.layout.container(container.name)
        config = try directory.config()
        made = try MadeRunState(bundle: directory.bundle)
        cgroup = try CgroupPlace(pid: container.pid, cgroup: host.layout.cgroup(of: container.name))
        members = try Cgroup(cgroup)
        var descriptors = DescriptorContext()
        try descriptors.addStream(1, path: directory.log)
        descriptors.seccompFilters = config.seccompFilters
        descriptors.acceptsInodeNumbers = acceptsInodeNumbers
        self.descriptors = descriptors
        interprocess = try InterprocessObjects(pid: container.pid)
        diagnosis = try container.network.map {
            try NetlinkSocket(.socketDiagnosis, in: NetworkNamespace(opening: $0.attachment.namespace))
        }
    }

    /// A container's processes and what is in the way of moving it, for `apus inspect`.
    public static func inspect(_ container: RunningContainer, _ host: SessionHost) throws -> InspectReport {
        let layout = try AddressSpaceReader(pid: container.pid)
        try layout.refresh()
        let search = try ObstacleSearch(container, layout, host)
        let others = search.otherProcesses()
        return try EngineInspector().report([container.pid] + others, try search.find())
    }

    /// Is the container's cgroup frozen (`runc pause`)?
    var isPaused: Bool { cgroup.isFrozen }

    /// What was set of the container at run time and travels along, as the last `find` saw it.
    private(set) var runState = CarriedRunState()

    /// A look at what surrounds the container's processes, which any thread may take.
    ///
    /// - Parameter sent: what of the state set at run time a destination has already.
    func lookAround(sent: CarriedRunState) -> @Sendable () throws -> RunStateChanges {
        let (made, pid, spec) = (made, container.pid, container.network?.spec)
        let cgroup = host.layout.cgroup(of: container.name)
        return { try made.changes(pid: pid, cgroup: cgroup, spec: spec, sent: sent) }
    }

    /// Everything that is in the way now.
    ///
    /// - Parameter around: what was seen around its processes a moment ago; nil: it is looked at now.
    public func find(sent: CarriedRunState = CarriedRunState(), around: RunStateChanges? = nil) throws -> [Obstacle] {
        var found = try (config.obstacles() + config.mountPointObstacles(in: directory.rootfs)).map {
            obstacle("configuration", $0)
        }
        if isPaused {
            found.append(obstacle("container", "it is paused: let it run (`runc resume`)", mayPass: true))
        }
        found +=
            try process?.findObstacles(layout, descriptors)
            ?? findObstacles(pid: container.pid, layout, descriptors)
        found += try inFreeze()
        let changes = try around ?? lookAround(sent: sent)()
        runState = changes.carried
        found += changes.obstacles.map { obstacle($0.what, $0.why) }
        // A child is one of both.
        var seen: Set<Obstacle> = []
        found = found.filter { seen.insert($0).inserted }
        if let diagnosis {
            let sockets = try diagnosis.tcpSockets()
            found += TCPDrain(sockets).signed.map { obstacle("\($0)", "signed (TCP MD5), keys cannot be carried") }
            let queued = sockets.filter { $0.state != .listen }.reduce(0) {
                $0 + UInt64($1.receiveQueue) + UInt64($1.sendQueue)
            }
            found += QueueLimit.reason(against: queued).map { [obstacle("sockets", $0, mayPass: true)] } ?? []
            found += try socketsShutDownForSending(diagnosis)
        } else if container.network == nil {
            found += try socketsWithoutNetwork()
        }
        return found
    }

    /// What can come into being until the process has stopped, and is quickly seen.
    func inFreeze() throws -> [Obstacle] {
        let name = processName(container.pid)
        return otherProcesses().map { ProcessObstacles.another($0, beside: container.pid, name) }
            + (try interprocess?.obstacles(container.pid) ?? [])
    }

    private func otherProcesses() -> [Int32] {
        // A cgroup that is gone holds none.
        ((try? members.processes()) ?? []).filter { $0 != container.pid }
    }

    private func socketsShutDownForSending(_ diagnosis: NetlinkSocket) throws -> [Obstacle] {
        let inodes = try diagnosis.udpSocketsShutDownForSending()
        if inodes.isEmpty { return [] }
        let links = Set(inodes.map { "socket:[\($0)]" })
        return try ProcessFiles.descriptors(of: container.pid).compactMap { number in
            guard let link = try? ProcessFiles.link("/proc/\(container.pid)/fd/\(number)"), links.contains(link) else {
                return nil
            }
            return obstacle("fd \(number)", "UDP socket that is shut down for sending, not carried yet")
        }
    }

    private func socketsWithoutNetwork() throws -> [Obstacle] {
        try ProcessFiles.descriptors(of: container.pid).compactMap { number in
            guard let link = try? ProcessFiles.link("/proc/\(container.pid)/fd/\(number)"), link.hasPrefix("socket:")
            else { return nil }
            return obstacle(
                "fd \(number)", "a socket, and the container has no network of its own that could move with it")
        }
    }

    private func obstacle(_ subject: String, _ reason: String, mayPass: Bool = false) -> Obstacle {
        Obstacle(
            pid: container.pid, process: processName(container.pid), subject: subject, reason: reason, mayPass: mayPass)
    }
}

// The container at the destination: its files, its network, and the stub that the runtime starts in it.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel
import Memory

/// Makes a container for a process that is still elsewhere.
final class ArrivingContainer {
    private let context: DestinationContext
    private var host: SessionHost { context.host }
    private var offer: Checked<WireOffer> { context.offer }

    /// Its folder, its configuration and its files; nil: none has been sent yet.
    private var place: (directory: ContainerDirectory, config: ContainerConfig, trees: DestinationTrees)?
    private(set) var network: DestinationHandover?
    private(set) var networkRecord: ContainerNetworkRecord?
    private(set) var tools = RestoreTools()
    private(set) var stub: StubProcess?
    private(set) var pages: PageReceiver?
    /// What the container's clocks show besides this host's; nil: nothing.
    private(set) var clocks: Clocks?

    init(_ context: DestinationContext) { self.context = context }

    /// As the host that runs it knows it.
    var running: RunningContainer {
        RunningContainer(
            name: offer.container, pid: stub!.pid, rootfs: place!.directory.rootfs, network: networkRecord)
    }

    var config: ContainerConfig { place!.config }
    var haveFilesMoved: Bool { place!.trees.haveMovedFiles }

    // ---- Files ---------------------------------------------------------------------------------------------

    func receiveTree(_ frame: Frame) throws {
        let tree: Checked<WireTree> = try frame.message()
        if place == nil { place = try makePlace() }
        try place!.trees.receive(tree, over: context.connection)
    }

    private func makePlace() throws -> (
        directory: ContainerDirectory, config: ContainerConfig, trees: DestinationTrees
    ) {
        let directory = try host.layout.container(offer.container)
        let config = try ContainerConfig(json: [UInt8](offer.config))
        try context.awaitGuard()
        try context.journal.write(.madeContainer)
        context.willMake("removing its folder") { try directory.remove() }
        try directory.create()
        let trees = try DestinationTrees(config: config, directory: directory, host: host) {
            [connection = context.connection] in try connection.hear()
        }
        return (directory, config, trees)
    }

    /// - Parameter anew: in place of what a handover that was put off has left there.
    func write(toLog output: Data, anew: Bool = false) throws {
        if output.isEmpty, !anew { return }
        let path = place!.directory.log
        let log = try FileDescriptor(opening: path, O_WRONLY | O_CREAT | O_APPEND | (anew ? O_TRUNC : 0))
        do { try output.withUnsafeBytes { try log.write($0) } } catch let error as KernelError {
            throw KernelError("writing the container's output to \(path)", error.errno)
        }
    }

    // ---- Stage ---------------------------------------------------------------------------------------------

    /// Has the runtime make the container, and its stub take on the layout and the threads of the process.
    func stage(_ stage: Checked<WireStage>) throws {
        guard stage.processes.count == 1, stage.spaces.count == 1 else {
            throw MigrationError.refused([
                "\(stage.processes.count) processes in \(stage.spaces.count) address spaces: one can be made yet"
            ])
        }
        let process = stage.processes[0], memory = MemoryIdentity(process.memory)
        guard process.pid == offer.pid else {
            throw MigrationError.protocolViolation("pid \(process.pid), which is not the container's first process")
        }
        let layout = try CheckedLayout(stage.spaces[0].areas)
        let stub = try make(stage)
        FaultPoint.reach(.destinationCreated)
        clocks = stage.hasClocks ? stage.clocks.clocks : nil
        try stub.stage(
            layout, threads: process.threads, capabilities: config.capabilityMask,
            clocks: try clocks.map { try $0 + Clocks.offsets() })
        (self.stub, pages) = (stub, PageReceiver([memory: stub]))
    }

    /// The handover was put off after the stub had become the process: the source stages again.
    func drop() throws {
        stub?.kill()
        (stub, pages) = (nil, nil)
        try host.runtime.delete(offer.container, force: true)
    }

    private func make(_ stage: Checked<WireStage>) throws -> StubProcess {
        let name = offer.container, journal = context.journal
        guard let (directory, config, trees) = place else {
            throw MigrationError.protocolViolation("the stage before the root file system")
        }
        if !offer.network.isEmpty, network == nil { try makeNetwork(stage.neighbours) }
        let misleading = try config.mountPointObstacles(in: directory.rootfs)
        guard misleading.isEmpty else { throw MigrationError.refused(misleading) }
        try write(toLog: stage.log, anew: true)
        try Stub.install(at: host.stubPath)
        let placement = ContainerConfig.Placement(
            root: directory.rootfs, networkNamespace: networkRecord?.attachment.namespace,
            cgroup: host.layout.cgroup(of: name), bundle: directory.bundle)
        try directory.write(
            config: config,
            prepared: try config.preparedForDestination(placement, stub: host.stubPath, limits: offer.limits))
        context.willMake("removing its container") { [host] in try host.runtime.delete(name, force: true) }
        let pid = try host.runtime.create(name, bundle: directory.bundle, log: directory.log)
        try host.runtime.start(name)
        try Self.awaitStub(pid)
        try setRunState(stage.runState, pid)
        try journal.update {
            $0.pid = pid
            $0.startTime = (try? ProcessFiles.startTime(of: pid)) ?? 0
        }
        try checkMappedFiles(pid)
        trees.pid = pid
        let stub = try StubProcess(pid: pid)
        self.stub = stub
        guard try ProcessStatus(pid: pid).numbers("NSpid").last == UInt64(offer.pid) else {
            throw MigrationError.refused(["the runtime gave the stub another PID than \(offer.pid)"])
        }
        return stub
    }

    /// What was set of the container at run time is set again.
    func setRunState(_ json: Data, _ pid: Int32) throws {
        if json.isEmpty { return }
        let state = try JSONDecoder().decode(CarriedRunState.self, from: json)
        try state.apply(pid: pid, cgroup: host.layout.cgroup(of: offer.container))
    }

    /// The runtime's own process becomes the stub a moment after `start` returns.
    private static func awaitStub(_ pid: Int32) throws {
        for _ in 0..<5000 {
            if (try? ProcessFiles.link("/proc/\(pid)/exe")) == ContainerConfig.stubPath { return }
            if isZombie(pid) { break }
            usleep(1000)
        }
        throw EngineError.exited(pid: pid, how: "before it became the stub")
    }

    private func checkMappedFiles(_ pid: Int32) throws {
        let files = offer.mappedFiles.map {
            MappedFile(path: $0.path, size: $0.size, digest: $0.digest.isEmpty ? nil : $0.digest)
        }
        let cache = DigestCache(file: host.layout.digestCacheFile)
        do {
            try MappedFiles.verify(
                files, root: TreeRoot(process: pid, folder: "/"), cache: cache, whileWorking: context.connection.hear)
            try cache.save()
        } catch let error as ContainerError { throw MigrationError.refused([error.description]) }
    }

    // ---- Network -------------------------------------------------------------------------------------------

    private func makeNetwork(_ neighbours: Data) throws {
        let spec = try JSONDecoder().decode(NetworkSpec.self, from: offer.network)
        guard let attachment = host.attachment(offer.container, context.source) else {
            throw MigrationError.refused(["\(host.name) has no bridge"])
        }
        let record = ContainerNetworkRecord(spec: spec, attachment: attachment)
        networkRecord = record
        try context.journal.update { $0.network = record }
        try Folder.create((attachment.namespace as NSString).deletingLastPathComponent)
        let handover = DestinationHandoverRecord(spec, attachment)
        context.willMake("removing its network") { try handover.abort() }
        network = try DestinationHandover.prepare(
            handover,
            neighbours: neighbours.isEmpty ? [] : try JSONDecoder().decode([Neighbour].self, from: neighbours))
        rehearseConnection(spec, attachment)
        tools = try Self.restoreTools(spec, attachment)
    }

    private static func restoreTools(_ spec: NetworkSpec, _ attachment: NetworkAttachment) throws -> RestoreTools {
        let namespace = try NetworkNamespace(opening: attachment.namespace)
        return RestoreTools(
            injector: try TCPInjector(in: namespace),
            datagrams: try UDPInjector(
                port: try NetlinkSocket().link(attachment.port).index, namespace: namespace, mac: spec.mac,
                mtu: spec.mtu, addresses: spec.addresses.compactMap { IPPrefix($0)?.address }))
    }

    /// The first connection of a namespace costs more than all others: it is made for practice, before the freeze.
    private func rehearseConnection(_ spec: NetworkSpec, _ attachment: NetworkAttachment) {
        guard let text = spec.addresses.first?.split(separator: "/").first else { return }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(9).bigEndian
        guard inet_pton(AF_INET, String(text), &address.sin_addr) == 1 else { return }
        let local = withUnsafeBytes(of: &address) { Data($0) }
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        // Only time is lost where it fails.
        _ = try? NetworkNamespace(opening: attachment.namespace).run { () throws(KernelError) in
            try TCPSocket.rehearse(try checkC(socket(AF_INET, type, 0), "making a socket"), local: local)
        }
    }

    /// The frames that it has held go back to the source.
    func giveFramesBack() throws {
        guard let record = networkRecord else { return }
        try DestinationHandoverRecord(record.spec, record.attachment).giveBack()
    }
}

// The destination's side of a migration: a stub in a container, turned into the process as its state arrives.
//
// Everything runs on the one thread that calls `run`, which must be the session's own: ptrace belongs to it.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel
import Memory

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
    private var control = MigrationControl()
    /// The agent's books know of it.
    private var isEntered = false
    private let steps = StepClock()
    private var place: SessionBounds.Place?
    /// Set before anything else is done.
    private var offer: Checked<WireOffer>!
    private var journal: Journal?
    private var guardian: GuardProcess?
    /// The source may have promised not to run: it has heard that its frames are held here.
    private var mayBePromised = false
    private var directory: ContainerDirectory?
    private var config: ContainerConfig?
    private var trees: DestinationTrees?
    private var stub: StubProcess?
    private var pages: PageReceiver?
    private var network: DestinationHandover?
    private var networkRecord: ContainerNetworkRecord?
    private var tools = RestoreTools()
    private var image: CheckedImage?
    /// What the container's clocks show besides this host's; nil: nothing.
    private var clocks: Clocks?
    private var released = false
    /// Undone in this order when the migration fails.
    private var made: [(what: String, undo: () throws -> Void)] = []

    public init(host: SessionHost, connection: FileDescriptor, delegate: any DestinationDelegate) throws {
        self.host = host
        self.connection = try Connection(connection, as: .destination)
        self.connection.limit(seconds: Connection.longestPreparation)
        self.delegate = delegate
    }

    /// Serves the connection to its end: a migration, or a question about one.
    public func run() {
        do {
            place = try SessionBounds.shared.enter()
            let frame = try connection.receive()
            switch frame.kind {
            case .offer:
                offer = try frame.message()
                connection.peer = offer.sourceHost
                try connection.startBeating()
                connection.silenceLimit = Connection.usualSilence
                try receive()
            case .inquiry:
                // One that asks and leaves without a word asks again.
                connection.limit(seconds: 30)
                try Inquiry.answer(try frame.message(), over: connection, journals: host.journals, host.layout)
            default: throw connection.unexpected(frame, "an offer")
            }
        } catch { fail(error) }
        guardian?.end()
    }

    private func receive() throws {
        // What is known of it here would else be said of another migration, too.
        guard Recovery.trace(of: offer.migration, in: host.journals) == nil else {
            throw MigrationError.refused(["\(host.name) knows a migration \(offer.migration) already"])
        }
        delegate.awaitEnd(ofArrival: offer.container, from: offer.sourceHost)
        let reasons = try refusals()
        if !reasons.isEmpty { throw MigrationError.refused(reasons) }
        let plan = try JSONDecoder().decode(MigrationPlan.self, from: offer.plan)
        connection.waitsForTrigger = plan.handover == .atTrigger
        control = try delegate.willReceive(
            migration: offer.migration, container: offer.container, from: offer.sourceHost, plan: plan)
        isEntered = true
        (journal, guardian) = try host.openJournal(
            JournalHeader(
                migration: offer.migration, role: .destination, container: offer.container, pid: 0, startTime: 0,
                peer: offer.sourceAddress, agent: getpid(), network: nil, cgroup: nil, peerName: offer.sourceHost,
                plan: plan, secret: SessionSecret(offer.secret)))
        connection.whileWaiting = { [control] in if control.isCancelled { throw MigrationError.cancelled } }
        var accepted = WireAccepted()
        (accepted.host, accepted.boot, accepted.address) = (host.name, try bootIdentity(), host.address)
        accepted.identity = try host.layout.identity()
        try connection.send(.accepted, accepted)
        control.update { $0.state = .accepted }
        FaultPoint.reach(.destinationAccepted)
        while true {
            let frame = try connection.receive()
            switch frame.kind {
            case .clockProbe: try answerProbe(frame)
            case .tree: try receiveTree(frame)
            case .stage: return try stageAndCopy(try frame.message())
            default: throw connection.unexpected(frame, "the stage")
            }
        }
    }

    private func answerProbe(_ frame: Frame) throws {
        var probe = try frame.message(WireClockProbe.self).message
        let now = Clocks.now()
        (probe.answered, probe.answeredBoottime) = (now.monotonic, now.boottime)
        try connection.send(.clockProbe, probe)
    }

    // ---- Offer ---------------------------------------------------------------------------------------------

    /// Every reason for which this host cannot take the container.
    private func refusals() throws -> [String] {
        var reasons: [String] = []
        let directory = try host.layout.container(offer.container)
        if directory.exists {
            reasons.append(
                "this host has a container \(offer.container) already: remove that (`apus rm --host \(host.name) \(offer.container)`)"
            )
        }
        let config = try ContainerConfig(json: [UInt8](offer.config))
        reasons += config.obstacles()
        reasons += config.excess(
            over: host.allowances, bundle: directory.bundle, networkIsOurs: !offer.network.isEmpty)
        let needs = config.requirements(
            runtime: offer.runtime, runtimeVersion: offer.runtimeVersion, bundle: directory.bundle)
        do throws(RuntimeError) {
            reasons += needs.missing(runtime: host.runtime.kind, runtimeVersion: try host.runtime.version())
        } catch {
            reasons.append("this host's \(host.runtime.kind) does not answer (\(error)): install it")
        }
        reasons += host.facts.reasonsAgainst(taking: try JSONDecoder().decode(KernelFacts.self, from: offer.kernel))
        if try offer.boot != bootIdentity(), !Clocks.areSupported {
            reasons.append(
                "this host has another monotonic clock, and its kernel no time namespaces, by which the container could keep its own"
            )
        }
        reasons += ResourceLimits.reasonsAgainst(offer.limits)
        let free = Self.availableMemory()
        if free < offer.residentBytes {
            reasons.append(
                "this host has \(free >> 20) MiB of memory available and the container holds \(offer.residentBytes >> 20) MiB: free some"
            )
        }
        if !offer.network.isEmpty, host.attachment(offer.container, source) == nil {
            reasons.append(
                "this host has no bridge for the container's network, or no port of it towards \(offer.sourceHost): give its agent --bridge and --backhaul, or port= of the --peer"
            )
        }
        return reasons
    }

    private var source: Peer { Peer(name: offer.sourceHost, address: PeerAddress(offer.sourceAddress)) }

    /// MemAvailable.
    private static func availableMemory() -> UInt64 {
        let text = (try? SmallFile.text("/proc/meminfo")) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") } ?? ""
        return (line.split(separator: " ").dropFirst().first.flatMap { UInt64($0) } ?? .max / 1024) * 1024
    }

    private func receiveTree(_ frame: Frame) throws {
        let tree: Checked<WireTree> = try frame.message()
        if trees == nil { try makeDirectory() }
        try trees!.receive(tree, over: connection)
    }

    // ---- Stage ---------------------------------------------------------------------------------------------

    private func stageAndCopy(_ message: Checked<WireStage>) throws {
        try stage(message)
        try copy()
    }

    /// The handover was put off after the stub had become the process: the source stages again.
    private func dropContainer() throws {
        stub?.kill()
        (stub, pages, image) = (nil, nil, nil)
        try host.runtime.delete(offer.container, force: true)
    }

    private func stage(_ stage: Checked<WireStage>) throws {
        let start = monotonicNow()
        let layout = try CheckedLayout(stage.areas)
        guard stage.threads.contains(offer.pid) else {
            throw MigrationError.protocolViolation("threads without the container's first one")
        }
        try makeContainer(stage)
        FaultPoint.reach(.destinationCreated)
        let stub = self.stub!
        clocks = stage.hasClocks ? stage.clocks.clocks : nil
        try stub.stage(layout, threads: stage.threads, clocks: try clocks.map { try $0 + Clocks.offsets() })
        pages = PageReceiver(stub)
        var staged = WireStaged()
        staged.durationNs = monotonicNow() - start
        try connection.send(.staged, staged)
        control.update { $0.state = .staged }
        ThreadPriority.preferred.apply()
        FaultPoint.reach(.destinationStaged)
    }

    private func makeDirectory() throws {
        let directory = try host.layout.container(offer.container)
        let config = try ContainerConfig(json: [UInt8](offer.config))
        try guardian?.awaitReadiness()
        try journal!.write(.madeContainer)
        made.append(("removing its folder", { try directory.remove() }))
        try directory.create()
        (self.directory, self.config) = (directory, config)
        trees = try DestinationTrees(config: config, directory: directory, host: host) { [connection] in
            try connection.hear()
        }
    }

    private func makeContainer(_ stage: Checked<WireStage>) throws {
        let name = offer.container, journal = journal!
        guard let directory, let config else {
            throw MigrationError.protocolViolation("the stage before the root file system")
        }
        if !offer.network.isEmpty, network == nil {
            let spec = try JSONDecoder().decode(NetworkSpec.self, from: offer.network)
            guard let attachment = host.attachment(name, source) else {
                throw MigrationError.refused(["\(host.name) has no bridge"])
            }
            let record = ContainerNetworkRecord(spec: spec, attachment: attachment)
            networkRecord = record
            try journal.update { $0.network = record }
            try Folder.create((attachment.namespace as NSString).deletingLastPathComponent)
            let handover = DestinationHandoverRecord(spec, attachment)
            made.append(("removing its network", { try handover.abort() }))
            let neighbours =
                stage.neighbours.isEmpty ? [] : try JSONDecoder().decode([Neighbour].self, from: stage.neighbours)
            network = try DestinationHandover.prepare(handover, neighbours: neighbours)
            rehearseConnection(spec, attachment)
            tools = try restoreTools(spec, attachment)
        }
        let misleading = try config.mountPointObstacles(in: directory.rootfs)
        guard misleading.isEmpty else { throw MigrationError.refused(misleading) }
        try write(toLog: stage.log, anew: true)
        try Stub.install(at: host.stubPath)
        let placement = ContainerConfig.Placement(
            root: directory.rootfs, networkNamespace: networkRecord?.attachment.namespace,
            cgroup: host.layout.cgroup(of: name),
            bundle: directory.bundle)
        try directory.write(
            config: config,
            prepared: try config.preparedForDestination(placement, stub: host.stubPath, limits: offer.limits))
        made.append(("removing its container", { [host] in try host.runtime.delete(name, force: true) }))
        let pid = try host.runtime.create(name, bundle: directory.bundle, log: directory.log)
        try host.runtime.start(name)
        try awaitStub(pid)
        try setRunState(stage.runState, pid)
        try journal.update {
            $0.pid = pid
            $0.startTime = (try? ProcessFiles.startTime(of: pid)) ?? 0
        }
        try checkMappedFiles(pid)
        trees!.pid = pid
        stub = try StubProcess(pid: pid)
        guard try ProcessStatus(pid: pid).numbers("NSpid").last == UInt64(offer.pid) else {
            throw MigrationError.refused(["the runtime gave the stub another PID than \(offer.pid)"])
        }
    }

    /// What was set of the container at run time is set again.
    private func setRunState(_ json: Data, _ pid: Int32) throws {
        if json.isEmpty { return }
        let state = try JSONDecoder().decode(CarriedRunState.self, from: json)
        try state.apply(pid: pid, cgroup: host.layout.cgroup(of: offer.container))
    }

    private func restoreTools(_ spec: NetworkSpec, _ attachment: NetworkAttachment) throws -> RestoreTools {
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

    /// The runtime's own process becomes the stub a moment after `start` returns.
    private func awaitStub(_ pid: Int32) throws {
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
                files, root: TreeRoot(process: pid, folder: "/"), cache: cache, whileWorking: connection.hear)
            try cache.save()
        } catch let error as ContainerError { throw MigrationError.refused([error.description]) }
    }

    // ---- Copy and handover ---------------------------------------------------------------------------------

    private func copy() throws {
        let pages = pages!, stub = stub!
        while true {
            // Said to the source in words it can rely on: whatever it may have promised meanwhile, this never runs
            // here.
            if control.isCancelled { throw MigrationError.cancelled }
            let frame = try connection.receive()
            switch frame.kind {
            case .pages:
                try pages.apply(frame.payload)
                FaultPoint.reach(.destinationCopying)
            case .tree: try steps.measure("apply file changes") { try receiveTree(frame) }
            case .discard: try pages.discard(try DiscardFrame.ranges(of: frame.payload))
            case .layout:
                let layout = try CheckedLayout(try frame.message(WireLayout.self).areas)
                let old = stub.layout
                try steps.measure("change layout") { try stub.change(to: layout) }
                pages.layoutChanged(from: old)
            case .clockProbe: try answerProbe(frame)
            case .passEnd:
                let end: Checked<WirePassEnd> = try frame.message()
                var applied = WirePassApplied()
                (applied.number, applied.began) = (end.number, end.began)
                try connection.send(.passApplied, applied)
            case .frozen:
                ThreadPriority.realTime.apply()
                try journal!.state(.frozen)
                mayBePromised = true
                // The promise may come whatever happens to the source: its silence ends nothing from here on.
                connection.silenceLimit = nil
                try steps.measure("hold frames") { try network?.accept() }
                try connection.send(.muted, WireMuted())
                FaultPoint.reach(.destinationMuted)
            case .thawed:
                ThreadPriority.preferred.apply()
                try journal!.state(.copying)
                (mayBePromised, connection.silenceLimit) = (false, Connection.usualSilence)
                try network?.decline()
                if image != nil { try dropContainer() }
                try connection.send(.thawed, WireFrozen())
            case .stage: return try stageAndCopy(try frame.message())
            case .handover:
                try restore(try steps.measure("read image") { try frame.message() })
            case .promise:
                return try complete(try steps.measure("read promise") { try frame.message() })
            case .abort:
                // Its sender has not promised anything.
                mayBePromised = false
                throw connection.unexpected(frame, "pages or the handover")
            default: throw connection.unexpected(frame, "pages or the handover")
            }
        }
    }

    /// Makes of the stub what can be made before the source's last word; a source that thaws takes it back.
    private func restore(_ handover: Checked<WireHandover>) throws {
        let image = try CheckedImage(handover.image)
        self.image = image
        let claims = handover.image.capabilities(beyond: config!)
        guard claims.isEmpty else { throw MigrationError.refused(claims) }
        let stub = stub!
        if let clocks, handover.hasClocks {
            try steps.measure("clocks") { try Self.await(handover.clocks.clocks, showing: clocks) }
        }
        try setRunState(handover.runState, stub.pid)
        try steps.measure("restore process") { try stub.restore(image, tools) }
        if trees!.haveMovedFiles { try steps.measure("check mapped files") { try stub.checkMappedFiles() } }
        try write(toLog: handover.log)
        FaultPoint.reach(.destinationRestored)
    }

    /// Waits until the container's clocks show here what they showed at the source: two machines' clocks drift apart
    /// while a migration lasts.
    static func await(_ shown: Clocks, showing besides: Clocks) throws {
        let behind = shown - (Clocks.now() + besides)
        let wait = max(behind.monotonic, behind.boottime)
        guard wait < 1_000_000_000 else {
            throw MigrationError(
                .failed,
                "the clocks of both hosts have drifted apart by \(wait / 1_000_000) ms since the migration began",
                advice: "look whether one of them was suspended, or its virtual machine stopped")
        }
        if wait > 0 { usleep(UInt32(wait / 1000 + 1)) }
    }

    /// - Parameter anew: in place of what a handover that was put off has left there.
    private func write(toLog output: Data, anew: Bool = false) throws {
        if output.isEmpty, !anew { return }
        let path = directory!.log
        let log = try FileDescriptor(opening: path, O_WRONLY | O_CREAT | O_APPEND | (anew ? O_TRUNC : 0))
        do { try output.withUnsafeBytes { try log.write($0) } } catch let error as KernelError {
            throw KernelError("writing the container's output to \(path)", error.errno)
        }
    }

    private func complete(_ promise: Checked<WirePromise>) throws {
        let stub = stub!, journal = journal!
        connection.whileWaiting = {}
        guard var image else { throw MigrationError.protocolViolation("a promise without an image") }
        try image.complete(connections: promise.connections, queues: promise.datagrams)
        let signals = LateSignals(
            ofProcess: promise.signals, ofThreads: promise.threadSignals.mapValues(\.records))
        try image.check(signals)
        try steps.measure("connections and registers") { try stub.finish(image, tools, signals) }
        FaultPoint.reach(.destinationPrepared)
        try journal.state(.releasing)
        FaultPoint.reach(.destinationReleasing)
        try steps.measure("disarm") { try stub.disarm() }
        try journal.write(.disarmed)
        FaultPoint.reach(.destinationDisarmed)
        released = true
        try steps.measure("open port") { try network?.open() }
        try steps.measure("release") { try stub.release() }
        let at = monotonicNow()
        FaultPoint.reach(.destinationReleased)
        ThreadPriority.normal.apply()
        try journal.state(.released)

        var message = WireReleased()
        message.at = at
        message.steps = steps.steps
        // Before the source is told: who hears from it that the container has moved may move it on.
        control.update { $0.state = .released }
        // Should it not arrive, the source asks.
        try? connection.send(.released, message)
        FaultPoint.reach(.destinationTold)
        delegate.didReceive(
            migration: offer.migration,
            RunningContainer(name: offer.container, pid: stub.pid, rootfs: directory!.rootfs, network: networkRecord),
            from: offer.sourceHost)
        // The source tells when its copy is gone; whether it does or not, this one runs.
        do { try connection.expect(.retired, WireRetired.self) } catch {
            Recovery.remember(journal.header, .released, in: host.journals)
            // It may have ended its copy all the same, and have nothing to ask.
            try? Recovery.forgetIfUnasked(journal.header, host)
        }
        try? network?.finish()
        control.update { $0.state = .retired }
        try? journal.settle()
    }

    // ---- Failure -------------------------------------------------------------------------------------------

    private func fail(_ error: any Error) {
        ThreadPriority.normal.apply()
        if released {
            // It runs here whatever happened after.
            delegate.didReceive(
                migration: offer.migration,
                RunningContainer(
                    name: offer.container, pid: stub!.pid, rootfs: directory!.rootfs, network: networkRecord),
                from: offer.sourceHost)
            return
        }
        let error = connection.cause(of: error)
        var way = WayBack(of: offer?.container ?? "a session without an offer", host.log)
        if let record = networkRecord {
            way.step("giving its frames back") {
                try DestinationHandoverRecord(record.spec, record.attachment).giveBack()
            }
        }
        stub?.kill()
        for (what, undo) in made.reversed() { way.step(what, undo) }
        if let journal {
            if mayBePromised { Recovery.remember(journal.header, .aborted, in: host.journals) }
            way.step("noting that it never ran here") { try journal.write(.resolved(.aborted)) }
            // What could not be removed is left to the guard, by the journal.
            if way.failures.isEmpty { way.step("settling its journal") { try journal.settle() } }
        }
        control.update { $0.state = .aborted }
        let reason = MigrationError(error, on: host.name)
        if reason.kind == .refused {
            connection.sendRefusal(reason, of: host.name)
        } else {
            connection.sendAbort(reason, neverRan: true)
        }
        if isEntered { delegate.didFail(migration: offer.migration, reason) }
        guard mayBePromised, let journal else { return }
        // A source that has promised asks what became of it. One that gives up says so, and does not ask; one whose
        // agent has died may have settled by its guard, and is asked.
        if connection.hearsAbort(seconds: 3) { return Recovery.forget(offer.migration, in: host.journals) }
        do { try Recovery.forgetIfUnasked(journal.header, host) } catch {
            host.log("migration \(offer.migration): what it came to is remembered for a week: \(error)")
        }
    }
}

// The source's side of a migration: from the offer to the end of its copy. docs/protocol.md has the states.
//
// Everything runs on the one thread that calls `run`, which must be the session's own: ptrace belongs to it.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel
import Memory

/// Moves one container away.
public final class SourceSession {
    let id: String
    let container: RunningContainer
    let host: SessionHost
    let destination: String
    let plan: MigrationPlan
    let control: MigrationControl
    let connection: Connection

    let process: SourceProcess
    let layout: AddressSpaceReader
    let pages: PageSender
    let journal: Journal
    let guardian: GuardProcess?
    let steps = StepClock()
    var tracker: DirtyTracker?
    var network: SourceHandover?
    var trees: SourceTrees?
    var diagnosis: NetlinkSocket?
    var descriptors = DescriptorContext()
    var report: MigrationReport
    /// Layout generation that the destination has.
    /// The layout that the destination has, or will have when it gets there.
    var sentGeneration: UInt64 = 0
    var sentAreas: [MemoryArea] = []
    /// The image is sent before the last pages and connections, so that the process is restored meanwhile. A handover
    /// that had to be put off after that makes no such bet again.
    var imageGoesAhead = true
    var clockOffset: Int64 = 0
    var sharesClock = true
    /// What the container's clocks show besides this host's: it came from a host with other ones.
    var ownClocks = Clocks.none
    /// What the container's clocks have to show besides the destination's; nil: nothing.
    var clocksThere: Clocks?
    let decidedAt = monotonicNow()
    /// When the handover was first wanted.
    var handoverWantedAt: Int64?
    /// Seconds that the destination has to answer the offer.
    var patience: Int64 = 30
    // ---- The copy's state (CopyPhase.swift)
    /// Pages known to be dirty, and pages known to be empty, that have not been sent.
    var pending = AddressRanges(), discards = AddressRanges()
    var passNumber: UInt64 = 0
    /// Passes that are not acknowledged: number, bytes on the wire, and when each began.
    var outstanding: [(number: UInt64, bytes: UInt64, began: Int64)] = []
    /// When the last acknowledgement came.
    var acknowledgedAt: Int64 = 0
    /// Everything that was dirty before this instant is at the destination.
    var mirroredUntil: Int64?
    /// Bytes a second that reached the destination, as last seen.
    var throughput = 100e6
    /// Milliseconds of the shortest pass so far (found and sent), and whether one has been short enough for a handover.
    var shortestPass = Double.infinity, wasReady = false
    /// Milliseconds the last scan took.
    var lastScan = 0.0

    private(set) var state = SessionState.offered
    /// Set once the promise is given: from then on only the other side's word ends it.
    var promised = false
    private let log: String

    /// Prepares a migration of `container` over a connection to the destination's agent.
    public init(
        id: String, container: RunningContainer, host: SessionHost, destination: String, plan: MigrationPlan,
        control: MigrationControl, connection: FileDescriptor
    ) throws {
        (self.id, self.container, self.host, self.destination) = (id, container, host, destination)
        (self.plan, self.control) = (plan, control)
        self.connection = try Connection(connection)
        self.connection.peer = destination
        let cgroup = try CgroupPlace(pid: container.pid, cgroup: host.layout.cgroup(of: container.name))
        (journal, guardian) = try host.openJournal(
            JournalHeader(
                migration: id, role: .source, container: container.name, pid: container.pid,
                startTime: try ProcessFiles.startTime(of: container.pid), peer: destination, agent: getpid(),
                network: container.network, cgroup: cgroup, plan: plan))
        process = try SourceProcess(pid: container.pid, undo: journal)
        layout = try AddressSpaceReader(pid: container.pid)
        pages = PageSender(process.memory, self.connection)
        log = try host.layout.container(container.name).log
        report = MigrationReport(plan: plan)
        report.id = id
        report.container = container.name
        report.source = host.name
        report.startedAt = Date().ISO8601Format()
    }

    /// Runs the migration to its end.
    ///
    /// - Throws: why it did not happen; the source then runs on, unless it is `MigrationError.inDoubt`.
    public func run() throws -> MigrationReport {
        connection.whileWaiting = { [control] in if control.isCancelled { throw MigrationError.cancelled } }
        defer { guardian?.end() }
        do {
            try phase("negotiate") { try negotiate() }
            try phase("stage") { try stage() }
            enter(.copying)
            try phase("copy") { try copy() }
            while true {
                do {
                    try phase("freeze") { try handover() }
                    break
                } catch let reason as Postponed { try postpone(reason) }
            }
            try finish()
            return report
        } catch {
            if promised {
                try settleAfterPromise(error)
                return report
            }
            let cause = explained(connection.cause(of: error))
            rollback(cause)
            throw cause
        }
    }

    func enter(_ next: SessionState) {
        state = next
        let elapsed = Double(monotonicNow() - decidedAt) / 1e9
        control.update { ($0.state, $0.elapsed) = (next, elapsed) }
    }

    private func phase(_ name: String, _ body: () throws -> Void) throws {
        let start = monotonicNow()
        defer {
            let duration = Double(monotonicNow() - start) / 1e6
            if let index = report.phases.firstIndex(where: { $0.name == name }) {
                report.phases[index].duration += duration
            } else {
                report.phases.append(.init(name: name, duration: duration))
            }
        }
        try body()
    }

    // ---- Offer ---------------------------------------------------------------------------------------------

    private func negotiate() throws {
        enter(.offered)
        let offer = try makeOffer()
        try connection.send(.offer, offer)
        FaultPoint.reach(.sourceOffered)
        let accepted: WireAccepted = try connection.limiting(seconds: patience) { try connection.expect(.accepted) }
        report.destination = accepted.host
        connection.peer = accepted.host
        enter(.accepted)
        try measureClocks(shared: accepted.boot == offer.boot)
    }

    /// Everything the destination has to know to say whether it can work.
    ///
    /// - Throws: what is in its way on this side.
    func makeOffer() throws -> WireOffer {
        if !host.facts.missing.isEmpty {
            throw MigrationError(
                .refused,
                "\(host.name) lacks \(host.facts.missing.joined(separator: ", ")), without which nothing can be moved from it",
                advice: "`apus doctor` there says why, and what to do")
        }
        let directory = try host.layout.container(container.name)
        let config = try directory.config()
        let refused = config.obstacles()
        guard refused.isEmpty else { throw MigrationError.refused(refused) }
        try descriptors.addStream(1, path: log)
        descriptors.seccompFilters = config.seccompFilters
        try layout.refresh()
        // The maps of a running process may show a mapping that is being moved twice: what is really there stays.
        var obstacles = try findObstacles()
        for _ in 0..<20 where !obstacles.isEmpty {
            usleep(5000)
            try layout.refresh()
            obstacles = try findObstacles()
        }
        obstacles += config.obstacles()
        guard obstacles.isEmpty else { throw MigrationError.refused(obstacles) }

        var offer = WireOffer()
        offer.protocolVersion = sessionProtocolVersion
        (offer.migration, offer.container, offer.sourceHost, offer.sourceAddress) = (
            id, container.name, host.name, host.address
        )
        offer.config = Data(config.json())
        if let network = container.network { offer.network = try JSONEncoder().encode(network.spec) }
        (offer.runtime, offer.runtimeVersion) = (host.runtime.kind, try host.runtime.version())
        offer.kernel = try JSONEncoder().encode(host.facts)
        offer.residentBytes = try Pagemap(pid: container.pid).contents(of: layout.tracked).bytes
        offer.boot = try bootIdentity()
        offer.pid = Int32(try ProcessStatus(pid: container.pid).numbers("NStgid").last ?? 0)
        offer.plan = try JSONEncoder().encode(plan)
        offer.mappedFiles = try WireMappedFile.all(of: layout, pid: container.pid, host: host)
        return offer
    }

    /// Everything that keeps the container from being moved now, in words.
    func findObstacles() throws -> [String] {
        var found = try Engine.findObstacles(pid: container.pid, layout, descriptors).map(\.description)
        if container.network == nil {
            found += try socketsWithoutNetwork()
        } else if let diagnosis {
            found += try TCPDrain.pending(diagnosis).signed.map { "\($0): signed (TCP MD5), not carried" }
        }
        return found
    }

    private func socketsWithoutNetwork() throws -> [String] {
        try ProcessFiles.descriptors(of: container.pid).compactMap { number in
            guard let link = try? ProcessFiles.link("/proc/\(container.pid)/fd/\(number)"), link.hasPrefix("socket:")
            else { return nil }
            let reason = "a socket, and the container has no network of its own that could move with it"
            return Obstacle(
                pid: container.pid, process: processName(container.pid), subject: "fd \(number)", reason: reason
            ).description
        }
    }

    /// Finds out how the destination's clocks differ. The container's never go back: there they show up to one round trip more.
    private func measureClocks(shared: Bool) throws {
        ownClocks = try Clocks.offsets(of: container.pid) - Clocks.offsets()
        if ownClocks != .none { report.containerOffset = -ownClocks.monotonic }
        sharesClock = shared
        if shared {
            clocksThere = ownClocks == .none ? nil : ownClocks
            return
        }
        clocksThere = try measureClocksThere()
    }

    /// - Returns: what the container's clocks have to show besides the destination's so that they are not behind.
    @discardableResult
    func measureClocksThere() throws -> Clocks {
        var best = Int64.max, result = Clocks.none
        for _ in 0..<9 {
            var probe = WireClockProbe()
            probe.sent = monotonicNow()
            try connection.send(.clockProbe, probe)
            let answer: WireClockProbe = try connection.expect(.clockProbe)
            let now = Clocks.now(), trip = now.monotonic - probe.sent
            if trip < best {
                best = trip
                clockOffset = answer.answered - (probe.sent + now.monotonic) / 2
                result =
                    ownClocks + now
                    - Clocks(monotonic: answer.answered, boottime: answer.answeredBoottime)
            }
        }
        report.clock = "estimated ± \(best / 2000) µs"
        return result
    }

    // ---- Stage ---------------------------------------------------------------------------------------------

    private func stage() throws {
        if let record = container.network {
            network = try SourceHandover(record.spec, record.attachment)
            diagnosis = try NetlinkSocket(.socketDiagnosis, in: NetworkNamespace(opening: record.attachment.namespace))
        }
        try guardian?.awaitReadiness()
        do { try process.attach() } catch EngineError.obstacles(let list) {
            throw MigrationError.refused(list.map(\.description))
        }
        FaultPoint.reach(.sourceAttached)
        try holdNetwork()
        layout.excluded = process.injected
        trees = try SourceTrees(container, host)
        try trees!.send(root: true, over: connection)
        try sendStage()
        try trees!.send(root: false, over: connection)
        enter(.staged)
        FaultPoint.reach(.sourceStaged)
    }

    /// Nothing that bridges forget while the container is silent may be flooded when the destination has an entry for it too.
    func holdNetwork() throws {
        guard let network else { return }
        networkTouched = true
        try network.hold()
    }

    /// Has the destination make a container with a stub and lay out its memory.
    private func sendStage() throws {
        try layout.refresh()
        logSent = 0
        var stage = WireStage()
        stage.generation = layout.generation
        stage.areas = layout.areas
        stage.threads = try process.learnThreads()
        stage.log = try newLog()
        if let clocksThere { stage.clocks = WireClocks(clocksThere) }
        if let network = container.network {
            stage.neighbours = try JSONEncoder().encode(
                try ContainerNetwork.neighbours(network.spec, network.attachment))
        }
        (sentGeneration, sentAreas) = (layout.generation, layout.areas)
        try connection.send(.stage, stage)
        let _: WireStaged = try connection.expect(.staged)
    }

    private var logSent: UInt64 = 0
    /// What was read of the log and waits for a handover that is not put off.
    var unsentLog = Data()

    /// What the container has written to its log since the last call.
    func newLog() throws -> Data {
        let file = try FileDescriptor(opening: log, O_RDONLY)
        var data = Data(), chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let n = try chunk.withUnsafeMutableBytes { try file.read(at: logSent, into: $0) }
            if n == 0 { return data }
            data += chunk[..<n]
            logSent += UInt64(n)
        }
    }

    // ---- The way back --------------------------------------------------------------------------------------

    private var isGone: Bool { kill(container.pid, 0) != 0 || isZombie(container.pid) }

    /// Why a migration ended: a container that ended by itself is the reason for whatever failed on it.
    private func explained(_ error: any Error) -> MigrationError {
        let known = MigrationError(error, on: host.name)
        if promised || known.kind == .cancelled { return known }
        // Its memory goes a moment before it is a zombie.
        if (error as? KernelError)?.errno == .noProcess || error is EngineError {
            for _ in 0..<100 where !isGone { usleep(1000) }
        }
        guard isGone else { return known }
        return MigrationError(
            .exited,
            "container \(container.name) ended on \(host.name) while it was being moved (pid \(container.pid))",
            advice: "`apus logs \(container.name)` shows its last words, `apus rm \(container.name)` removes it")
    }

    /// Before the promise: the source runs on as if nothing had been.
    private func rollback(_ reason: MigrationError) {
        thaw()
        tracker?.stop()
        tracker = nil
        do {
            try process.disarm()
            // A port that could not be opened is the guard's to open.
            if !networkTouched { try journal.settle() }
        } catch {
            // The process is gone, or the guard has to put right what is left: the journal says what.
            if isGone { try? journal.settle() }
        }
        enter(.aborted)
        connection.sendAbort(reason)
    }

    var capture: Capture?
    var cgroup: Cgroup?
    var networkTouched = false

    /// Undoes the freeze, however far it got.
    func thaw() {
        if networkTouched, let network {
            do {
                try network.rollback()
                networkTouched = false
            } catch { control.update { $0.remark = "its network is not back yet: \(error)" } }
        }
        try? capture?.releaseConnections()
        capture = nil
        try? cgroup?.thaw()
        try? process.letGo()
    }

    /// The handover cannot be now: the source runs on for a while and it is tried again.
    private func postpone(_ reason: Postponed) throws {
        thaw()
        control.update { $0.remark = "handover postponed: \(reason.why)" }
        if reason.told { try connection.send(.thawed, WireFrozen()) }
        if reason.told, imageGoesAhead {
            // The stub has become the process by now: another one is needed, and all of the memory.
            imageGoesAhead = false
            try sendStage()
            try trees!.send(root: false, over: connection)
            if let tracker {
                pending = try tracker.contents(of: AddressRanges(layout.tracked.map(\.range)), in: layout.tracked)
                discards = AddressRanges()
            }
        }
        guard monotonicNow() < postponeUntil(now: monotonicNow()) else { throw MigrationError.refused([reason.why]) }
        enter(.copying)
        usleep(100_000)
        if control.isCancelled { throw MigrationError.cancelled }
        if tracker != nil { try pass() }
    }

    private var firstPostponed: Int64?
    private func postponeUntil(now: Int64) -> Int64 {
        if firstPostponed == nil { firstPostponed = now }
        return firstPostponed! + Int64(plan.postponeLimit * 1e9)
    }
}

/// Why the handover cannot be now though it may soon.
struct Postponed: Error {
    let why: String
    /// The destination knows of the freeze, and may have the image.
    let told: Bool
}

/// The version of the session's protocol that this code speaks.
public let sessionProtocolVersion: UInt32 = 3

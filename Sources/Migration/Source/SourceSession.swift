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
    let journal: Journal
    let guardian: GuardProcess?
    let steps = StepClock()
    private(set) lazy var copier = Copier(
        plan, process, layout, connection, control, decidedAt: decidedAt
    ) { [unowned self] in try checkCancelled() }
    private(set) lazy var strategy = copier.strategy(
        plan, HandoverTrigger(plan, control),
        PageFaultTarget(
            pid: container.pid, cgroupFolders: journal.header.cgroup?.folders ?? [], host: host.name,
            wake: [connection.descriptor.number, control.wakeup?.number ?? -1, process.pidfd.number]))
    var network: SourceHandover?
    var trees: SourceTrees?
    var diagnosis: NetlinkSocket?
    let search: ObstacleSearch
    var descriptors: DescriptorContext { search.descriptors }
    var report: MigrationReport
    /// The image is sent before the last pages and connections, so that the process is restored meanwhile. A handover
    /// that had to be put off after that makes no such bet again.
    var imageGoesAhead = true
    /// What was set of the container at run time: as last seen, and as the destination was told.
    var runState: CarriedRunState { search.runState }
    var sentRunState = CarriedRunState()
    var runStateWatch: RunStateWatch?
    var clocks = HostClocks()
    var log: LogTail
    let decidedAt = monotonicNow()
    /// When the handover was first wanted.
    var handoverWantedAt: Int64?
    /// Seconds that the destination has to answer the offer.
    var patience: Int64 = 30
    // ---- The handover that is being tried (SourceHandoverPhase.swift)
    /// When the container was stopped; 0: not yet.
    var frozenAt: Int64 = 0
    /// The destination has been sent `frozen`, and the image, of this handover.
    var toldFrozen = false, sentImage = false
    /// The step of the freeze that is being taken.
    var stepName = ""

    private(set) var state = SessionState.offered
    /// Set once the promise is given: from then on only the other side's word ends it.
    var promised = false
    let secret = SessionSecret()

    /// Prepares a migration of `container` over a connection to the destination's agent.
    public init(
        id: String, container: RunningContainer, host: SessionHost, destination: String, plan: MigrationPlan,
        control: MigrationControl, connection: FileDescriptor
    ) throws {
        // Such a process has no memory to be looked into.
        if let ended = ProcessObstacles.endedLeader(container.pid) { throw MigrationError.refused([ended.description]) }
        (self.id, self.container, self.host, self.destination) = (id, container, host, destination)
        (self.plan, self.control) = (plan, control)
        self.connection = try Connection(connection, as: .source)
        self.connection.peer = destination
        layout = try AddressSpaceReader(pid: container.pid)
        search = try ObstacleSearch(
            container, layout, host, acceptsInodeNumbers: plan.accept?.contains(.inodeNumbers) ?? false)
        let cgroup = try CgroupPlace(pid: container.pid, cgroup: host.layout.cgroup(of: container.name))
        let (journal, guardian) = try host.openJournal(
            JournalHeader(
                migration: id, role: .source, container: container.name, pid: container.pid,
                startTime: try ProcessFiles.startTime(of: container.pid), peer: destination, agent: getpid(),
                network: container.network, cgroup: cgroup, plan: plan, secret: secret))
        (self.journal, self.guardian) = (journal, guardian)
        do { process = try SourceProcess(pid: container.pid, undo: journal) } catch {
            // The container has just ended. Nothing was done to it.
            try journal.settle()
            guardian?.end()
            throw error
        }
        search.process = process
        log = LogTail(try host.layout.container(container.name).log)
        report = MigrationReport(plan: plan)
        report.id = id
        report.container = container.name
        report.source = host.name
        report.startedAt = Date().ISO8601Format()
        report.loadAtDecision = try? ProcessLoad(of: container.pid)
    }

    /// Runs the migration to its end.
    ///
    /// - Throws: why it did not happen; the source then runs on, unless it is `MigrationError.inDoubt`.
    public func run() throws -> MigrationReport {
        defer {
            control.gate.open()
            endGuard()
        }
        do {
            listen()
            process.whileWaiting = { [connection] in try connection.whileWaiting() }
            connection.waitsForTrigger = plan.handover == .atTrigger
            try connection.startBeating()
            try phase("negotiate") { try negotiate() }
            try phase("stage") { try stage() }
            enter(.copying)
            try phase("copy") { try strategy.run() }
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

    /// What ends a wait while the container runs.
    private func listen() {
        connection.interval = 50
        connection.whileWaiting = { [control] in if control.isCancelled { throw MigrationError.cancelled } }
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
        // Until it knows what the connection is for, the other side says nothing.
        connection.silenceLimit = Connection.usualSilence
        FaultPoint.reach(.sourceOffered)
        let accepted: Checked<WireAccepted> = try connection.limiting(seconds: patience) {
            try connection.expect(.accepted)
        }
        try journal.update {
            ($0.peerName, $0.peerBoot, $0.peerIdentity) = (accepted.host, accepted.boot, accepted.identity)
        }
        report.destination = accepted.host
        connection.peer = accepted.host
        enter(.accepted)
        try clocks.compare(shared: accepted.boot == offer.boot, container: container.pid, over: connection)
        if clocks.ofContainer != .none { report.containerOffset = -clocks.ofContainer.monotonic }
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
        try awaitObstacles()
        let config = try host.layout.container(container.name).config()

        var offer = WireOffer()
        offer.protocolVersion = sessionProtocolVersion
        (offer.migration, offer.container, offer.sourceHost, offer.sourceAddress) = (
            id, container.name, host.name, host.address
        )
        offer.secret = Data(secret.bytes)
        offer.config = Data(config.json())
        if let network = container.network { offer.network = try JSONEncoder().encode(network.spec) }
        (offer.runtime, offer.runtimeVersion) = (host.runtime.kind, try host.runtime.version())
        offer.kernel = try JSONEncoder().encode(host.facts)
        offer.residentBytes = try copier.residentPages().bytes
        offer.boot = try bootIdentity()
        offer.pid = Int32(try ProcessStatus(pid: container.pid).numbers("NStgid").last ?? 0)
        offer.plan = try JSONEncoder().encode(plan)
        offer.limits = try ResourceLimits.hard(of: container.pid)
        offer.mappedFiles = try WireMappedFile.all(of: layout, pid: container.pid, host: host, whileWorking: hear)
        return offer
    }

    func checkCancelled() throws {
        if control.isCancelled { throw MigrationError.cancelled }
        if isGone { throw EngineError.exited(pid: container.pid, how: "while it was copied") }
        if !process.memory.isCurrent { throw EngineError.executed(pid: container.pid) }
        try process.letHeldGo()
    }

    private var heardAt: Int64 = 0
    /// For long steps: throws when the move was cancelled, the container has ended or the destination has gone.
    private func hear() throws {
        if promised || monotonicNow() - heardAt < 5_000_000 { return }
        heardAt = monotonicNow()
        try checkCancelled()
        // In the freeze its limit is asked for between the steps: what a walk has found must not be forgotten.
        if state != .frozen { try connection.hear() }
    }

    /// Looks for what is in the way of the migration, and waits as long for what may pass as a handover would.
    private func awaitObstacles() throws {
        let begin = monotonicNow(), limit = Int64(plan.postponeLimit * 1e9)
        var looks = 0
        while true {
            try layout.refresh()
            let obstacles = try search.find(sent: sentRunState)
            if obstacles.isEmpty { return }
            looks += 1
            let waited = monotonicNow() - begin
            // A running process may change between two parts of one look: its maps show a mapping that is being moved
            // twice, an epoll set names a file that has just been closed. What is really there is seen by every look.
            guard obstacles.allSatisfy(\.mayPass) ? waited < limit : looks < 20 else {
                throw MigrationError.refused(obstacles.map(\.description))
            }
            control.update { $0.remark = "waiting: \(obstacles[0])" }
            try checkCancelled()
            usleep(waited < 100_000_000 ? 5000 : 50_000)
        }
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
        // The engine's own mapping shows whether memory to come is locked.
        try layout.refresh(advice: true)
        if let locked = layout.obstacles.first(where: { $0.reason.contains("MCL_FUTURE") }) {
            throw MigrationError.refused([locked.description])
        }
        trees = try SourceTrees(container, host) { [unowned self] in try hear() }
        copier.sendFiles = { [unowned self] in try trees!.sendChanges(over: connection) }
        try trees!.send(root: true, over: connection)
        try sendStage()
        try trees!.send(root: false, over: connection)
        enter(.staged)
        FaultPoint.reach(.sourceStaged)
    }

    /// Nothing that bridges forget while the container is silent may be flooded when the destination has an entry for
    /// it too.
    func holdNetwork() throws {
        guard let network else { return }
        networkTouched = true
        try network.hold()
    }

    /// Has the destination make a container with a stub and lay out its memory.
    private func sendStage() throws {
        try layout.refresh()
        var stage = WireStage()
        stage.generation = layout.generation
        stage.areas = layout.areas
        stage.threads = try process.learnThreads()
        stage.log = try log.whole()
        stage.runState = try JSONEncoder().encode(runState)
        sentRunState = runState
        if let there = clocks.ofContainerThere { stage.clocks = WireClocks(there) }
        if let network = container.network {
            stage.neighbours = try JSONEncoder().encode(
                try ContainerNetwork.neighbours(network.spec, network.attachment))
        }
        copier.noteLayoutSent()
        try connection.send(.stage, stage)
        try connection.expect(.staged, WireStaged.self)
    }

    // ---- The way back --------------------------------------------------------------------------------------

    private var isGone: Bool { kill(container.pid, 0) != 0 || isZombie(container.pid) }

    /// Why a migration ended: a container that ended by itself is the reason for whatever failed on it, and so is a
    /// program that was executed.
    private func explained(_ error: any Error) -> MigrationError {
        let known = MigrationError(error, on: host.name)
        if promised || known.kind == .cancelled { return known }
        // Its memory goes a moment before it is a zombie.
        if (error as? KernelError)?.errno == .noProcess || error is EngineError {
            for _ in 0..<100 where !isGone { usleep(1000) }
        }
        guard isGone else {
            return process.memory.isCurrent
                ? known : MigrationError(EngineError.executed(pid: container.pid), on: host.name)
        }
        return MigrationError(
            .exited,
            "container \(container.name) ended on \(host.name) while it was being moved (pid \(container.pid))",
            advice: "`apus logs \(container.name)` shows its last words, `apus rm \(container.name)` removes it")
    }

    var capture: Capture?
    var cgroup: Cgroup?
    /// This migration has frozen the cgroup.
    var hasFrozen = false
    var networkTouched = false
    /// The note of sockets in repair, as long as they may be.
    private var repairs: UndoStep?

    /// Before the promise: the source runs on as if nothing had been.
    private func rollback(_ reason: MigrationError) {
        runOn()
        enter(.aborted)
        connection.sendAbort(reason)
    }

    /// New connections wait for the end of the handover.
    var connectionHold: ConnectionHold?

    func endConnectionHold() {
        do { try connectionHold?.end() } catch {
            control.update { $0.remark = "new connections were held back and begin a second late: \(error)" }
        }
        connectionHold = nil
    }

    /// The whole way back: this copy runs on, without a trace of the engine. What cannot be put right stays in the
    /// journal, for the guard.
    func runOn() {
        var way = WayBack(of: container.name, host.log)
        letRun(&way)
        copier.stopTracking()
        // A pause may last: the guard waits for its end. The search holds the process: held by it in turn, both would
        // stay.
        process.whileWaiting = { [weak search, container] in
            if search?.isPaused == true { throw EngineError.heldUp(task: container.pid, doing: "being stopped") }
        }
        way.step("removing the engine's traces from it") { try process.disarm() }
        // Of a process that is gone nothing is left to be put right.
        if !isGone, !way.failures.isEmpty || networkTouched || !journal.outstanding.isEmpty {
            return control.update { $0.remark = "not all is put right yet: \(way.failures.joined(separator: "; "))" }
        }
        way.step("settling its journal") { try journal.settle() }
    }

    /// Undoes what the freeze has done, so that the source runs; the engine stays in it.
    private func letRun(_ way: inout WayBack) {
        if networkTouched, let network {
            way.step("giving it back its frames") {
                try network.rollback()
                networkTouched = false
            }
        }
        way.step("taking its connections out of repair") {
            try capture?.releaseConnections()
            if !networkTouched, let repairs {
                try journal.done(repairs)
                self.repairs = nil
            }
        }
        capture = nil
        way.step("thawing its cgroup") { try thawCgroup() }
        way.step("letting its threads go") { try process.letGo() }
        endConnectionHold()
        control.gate.open()
        ThreadPriority.normal.apply()
    }

    /// Notes what the freeze may leave behind, before it begins.
    func noteFreeze() throws {
        try journal.note(.cgroupFreeze(pid: container.pid))
        guard network != nil else { return }
        try holdNetwork()
        let note = UndoStep.socketRepair(pid: container.pid, reusing: try TCPSocket.reusingAddress(pid: container.pid))
        try journal.note(note)
        repairs = note
    }

    /// Takes back no other's freeze than this migration's.
    func thawCgroup() throws {
        if hasFrozen { try cgroup!.thaw() }
        hasFrozen = false
        let note = UndoStep.cgroupFreeze(pid: container.pid)
        if journal.outstanding.contains(note) { try journal.done(note) }
    }

    /// The guard ends, or plays what the journal still holds. To do that it may have to trace the process, which the
    /// kernel lets it once this thread has ended.
    private func endGuard() {
        guard let guardian else { return }
        if !journal.isSettled, (try? OwnThread.start("apus-guard", { guardian.end() })) != nil { return }
        guardian.end()
    }

    /// The handover cannot be now: the source runs on for a while and it is tried again.
    private func postpone(_ reason: Postponed) throws {
        var way = WayBack(of: container.name, host.log)
        letRun(&way)
        if !way.failures.isEmpty {
            throw MigrationError(
                .failed, "\(container.name) could not go on as before: \(way.failures.joined(separator: "; "))")
        }
        listen()
        let now = monotonicNow(), stopped = frozenAt == 0 ? now : frozenAt
        report.handovers.append(
            HandoverReport(
                start: Double(stopped - decidedAt) / 1e6, frozen: Double(now - stopped) / 1e6, postponed: reason.why))
        control.update { $0.remark = "handover postponed: \(reason.why)" }
        host.log(
            "container \(container.name): handover postponed, it stood still for \((now - stopped) / 1_000_000) ms: \(reason.why)"
        )
        firstPostponed = firstPostponed ?? now
        guard now < firstPostponed! + Int64(plan.postponeLimit * 1e9) else { throw tooOften(reason) }
        enter(.copying)
        if toldFrozen { try takeBack() }
        (frozenAt, toldFrozen, sentImage) = (0, false, false)
        usleep(100_000)
        if control.isCancelled { throw MigrationError.cancelled }
        if copier.isTracking { try copier.pass() }
    }
    private var firstPostponed: Int64?

    /// Tells the destination that the source runs again, and waits until it knows.
    private func takeBack() throws {
        try trees!.sendUnsent(over: connection)
        try connection.send(.thawed, WireFrozen())
        while true {
            let frame = try connection.receive()
            if frame.kind == .thawed { break }
            // Its answers to what was sent before may have been under way.
            guard [.passApplied, .muted].contains(frame.kind) else {
                throw connection.unexpected(frame, "the answer to thawed")
            }
        }
        copier.forgetUnanswered()
        guard sentImage else { return }
        // The stub has become the process by now: another one is needed, and all of the memory.
        imageGoesAhead = false
        try sendStage()
        try trees!.send(root: false, over: connection)
        try copier.startAnew()
    }

    private func tooOften(_ reason: Postponed) -> MigrationError {
        let frozen = report.handovers.map(\.frozen)
        let longest = frozen.max() ?? 0
        let tried =
            longest == 0
            ? ""
            : " (the last of \(frozen.count) handovers tried, which stopped the container for \(Int(longest.rounded(.up))) ms at most)"
        return MigrationError(.refused, reason.why + tried, advice: reason.advice)
    }
}

/// Why the handover cannot be now though it may soon.
struct Postponed: Error {
    let why: String
    /// What to do if it stays so.
    var advice: String?
}

/// The version of the session's protocol that this code speaks.
public let sessionProtocolVersion: UInt32 = 5

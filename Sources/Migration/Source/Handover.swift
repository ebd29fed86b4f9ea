// The handover at the source: the last preparations, the freeze up to the promise, and its way back. Every microsecond
// between the first stop and the release counts.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel
import Memory

/// Hands a container over. May be tried several times: what a try has done is undone by `letRun`.
final class Handover {
    private let source: SourceContext
    private let copier: Copier
    private let strategy: any CopyStrategy
    private let staging: Staging
    let cgroup: CgroupFreezer
    private var trees: SourceTrees { staging.trees! }
    private var connection: Connection { source.connection }
    private var process: SourceProcess { source.process }
    private var layout: AddressSpaceReader { source.layout }
    private var steps: StepClock { source.steps }

    /// The image is sent before the last pages and connections, so that the process is restored meanwhile. A handover
    /// that had to be put off after that makes no such bet again.
    private var imageGoesAhead = true
    /// When the handover was first wanted.
    private var wantedAt: Int64?

    // ---- Of the try that is under way
    private(set) var limit: FreezeLimit
    private var runStateWatch: RunStateWatch?
    private var capture: Capture?
    /// The note of sockets in repair, as long as they may be.
    private var repairs: UndoStep?
    /// The destination has been sent `frozen`, and the image.
    private var toldFrozen = false, sentImage = false

    init(_ source: SourceContext, _ copier: Copier, _ strategy: any CopyStrategy, _ staging: Staging) {
        (self.source, self.copier, self.strategy, self.staging) = (source, copier, strategy, staging)
        cgroup = CgroupFreezer(source)
        limit = FreezeLimit(source.plan)
    }

    /// Hands over, and returns once the destination has said that the container runs there.
    ///
    /// - Throws: `Postponed` if it cannot be now.
    func run() throws {
        try prepare()
        let lastPass = try copier.prepareLastPass()
        defer { lastPass?.wait() }
        // What is being done to the container has effect before the freeze, or on the copy that lives.
        try source.control.gate.close { try source.checkCancelled() }
        source.enter(.frozen)
        ThreadPriority.realTime.apply()
        defer { ThreadPriority.normal.apply() }
        try stop()
        try sendState(lastPass)
        try sever()
        try promise()
        try awaitRelease()
    }

    // ---- Before the freeze ---------------------------------------------------------------------------------

    /// Takes the last look for obstacles, and sends what changed meanwhile, so that the freeze begins with as little as
    /// can be.
    private func prepare() throws {
        let begin = monotonicNow()
        wantedAt = wantedAt ?? source.control.triggeredAt ?? monotonicNow()
        let around = try lookAround()
        try trees.sendChanges(over: connection)
        _ = try process.learnThreads()
        try cgroup.open()
        try layout.refresh(advice: true)
        source.report.stateBytes = try source.residentPages().bytes
        _ = try strategy.keepUp()
        if let obstacle = try source.search.find(sent: staging.sentRunState, around: around).first {
            throw Postponed(why: obstacle.description)
        }
        // The next frame has to be the answer to a probe.
        if !staging.clocks.areShared {
            try copier.awaitAnswers(all: true)
            try staging.clocks.refresh(over: connection)
        }
        source.report.preparation = Double(monotonicNow() - begin) / 1e6
        try limit.check(lastPass: try strategy.runUp())
        try announce()
        try source.network?.drain { try copier.idle(500) }
        try trees.sendChanges(over: connection)
        try limit.check(compared: trees.compared)
        try staging.log.advance()
    }

    /// Looks at what surrounds the container, which takes milliseconds, and goes on copying meanwhile.
    private func lookAround() throws -> RunStateChanges {
        let look = source.search.lookAround(sent: staging.sentRunState)
        let (pid, cgroup) = (source.container.pid, source.host.layout.cgroup(of: source.container.name))
        let beside = try Beside("apus-around") {
            // Before the look, so that it misses nothing.
            let load = try? ProcessLoad(of: pid)
            return (watch: try RunStateWatch(pid: pid, cgroup: cgroup), changes: try look(), load: load)
        }
        defer { beside.join() }
        while !beside.isOver { if try !strategy.keepUp() { try copier.idle(500) } }
        let (watch, changes, load) = try beside.join()!.get()
        runStateWatch = watch
        source.report.loadAtHandover = load
        return changes
    }

    /// Notes what the freeze may leave behind.
    private func announce() throws {
        try cgroup.announce()
        guard let network = source.network else { return }
        try network.holdAddress()
        let pid = source.container.pid
        let note = UndoStep.socketRepair(pid: pid, reusing: try TCPSocket.reusingAddress(pid: pid))
        try source.journal.note(note)
        repairs = note
    }

    // ---- The freeze ----------------------------------------------------------------------------------------

    /// A step of the freeze before the promise.
    private func step<T>(_ name: String, _ body: () throws -> T) throws -> T {
        limit.step = name
        try checkFreeze()
        return try steps.measure(name, body)
    }

    /// Has somebody cancelled, or has the container stood still for as long as it may?
    private func checkFreeze() throws {
        if source.control.isCancelled { throw MigrationError.cancelled }
        try limit.check()
    }

    private func stop() throws {
        limit.frozenAt = monotonicNow()
        source.report.frozenAt = limit.frozenAt
        connection.interval = 2
        connection.whileWaiting = { [unowned self] in try checkFreeze() }
        do { try step("stop threads") { try process.freeze() } } catch EngineError.obstacles(let list) {
            throw Postponed(list)
        }
        FaultPoint.reach(.sourceStopped)
        try step("read layout") { _ = try layout.refresh(quick: true) }
    }

    /// Captures everything but connections, and sends it with the last pages.
    private func sendState(_ lastPass: LastPass?) throws {
        do {
            capture = try captureShared { [copier] in copier.beginLastPass(lastPass) }
            FaultPoint.reach(.sourceCaptured)
            try sendCapture(lastPass)
        } catch {
            var reason = error
            if case EngineError.obstacles(let list) = error { reason = Postponed(list) }
            // What the pass took from the tracker is for the next one to send.
            if reason is Postponed { try copier.keepFound(by: lastPass) }
            throw reason
        }
    }

    /// Captures what threads share, after a last look for what cannot be carried.
    private func captureShared(_ threadsAreStill: () -> Void) throws -> Capture {
        if let change = try step("look for changes around it", { runStateWatch?.change() }) {
            throw Postponed(why: change)
        }
        let fresh = try step("look for children") { try source.search.inFreeze() }
        guard layout.obstacles.isEmpty, fresh.isEmpty else { throw EngineError.obstacles(layout.obstacles + fresh) }
        return try process.capture(source.search.descriptors, threadsAreStill: threadsAreStill) {
            steps.note("capture: \($0)", $1, $2)
        }
    }

    private func sendCapture(_ lastPass: LastPass?) throws {
        toldFrozen = true
        try connection.send(.frozen, WireFrozen())
        // Before what opens files by their paths: mappings and descriptors. The destination has the tree as it is now
        // by then.
        try step("last file changes") {
            try trees.findLastChanges(written: capture!.writtenFiles, maps: layout.entries)
        }
        try step("send file changes") { try trees.sendUnsent(over: connection, between: checkFreeze) }
        try step("send layout") { try copier.sendLayoutIfNew() }
        if imageGoesAhead { try sendImage() }
        // Meanwhile the destination makes what the image says.
        try checkFreeze()
        try process.captureThreads(&capture!) { [steps] in steps.note("capture: \($0)", $1, $2) }
        if imageGoesAhead { try sendThreads() }
        let began = monotonicNow()
        try step("last scan") { try copier.finish(lastPass) }
        try step("send pages") { try copier.sendLast(began: began) { [self] in try checkFreeze() } }
        FaultPoint.reach(.sourceLastPass)
    }

    private func sendImage() throws {
        // The last lines were written on the way into the freeze.
        try staging.log.advance()
        try step("send image") {
            sentImage = true
            var handover = WireHandover()
            handover.tree = capture!.tree
            handover.log = staging.log.unsent
            let runState = source.search.runState
            if runState != staging.sentRunState {
                handover.runState = try JSONEncoder().encode(runState)
                staging.sentRunState = runState
            }
            if let shown = staging.clocks.shownNow { handover.clocks = WireClocks(shown) }
            try connection.send(.handover, handover)
        }
    }

    private func sendThreads() throws {
        try step("send threads") {
            var threads = WireThreads()
            threads.processes = capture!.threads
            try connection.send(.threads, threads)
        }
    }

    /// Cuts the container off from its network: its frames go to the destination, its connections are captured.
    private func sever() throws {
        // Before a socket is put under repair: were the engine to die while the process can run, its next send would
        // fail.
        try step("freeze cgroup") { try cgroup.freeze(within: limit.left(atMost: 5000)) }
        FaultPoint.reach(.sourceFrozen)
        try step("wait until muted") {
            // What was under way when the freeze began is acknowledged first.
            try copier.takeLastAnswers()
            _ = try connection.expect(.muted, WireMuted.self)
        }
        if let network = source.network {
            // Seen now, a new connection costs nothing but another attempt; after the next step it costs what the
            // destination holds.
            try step("look for handshakes") { try network.checkDrained() }
            try step("redirect frames") { try network.redirect() }
            FaultPoint.reach(.sourceRedirected)
            try step("capture connections") { try capture!.beginLate() }
            FaultPoint.reach(.sourceRepaired)
            if capture!.receivesLate { try step("wait for frames") { try awaitFrames() } }
            try step("mute port") { try network.silence() }
            FaultPoint.reach(.sourceSilenced)
            try step("check connections") { try checkConnections(network) }
        }
        if !imageGoesAhead {
            try sendImage()
            try sendThreads()
        }
    }

    /// A datagram that was sent before and is not in its socket yet would be lost.
    private func awaitFrames() throws {
        guard try ReceiveBacklog.drain(milliseconds: limit.left(atMost: 50)) else {
            throw Postponed(
                why:
                    "this host's kernel has frames that it has not come to, datagrams of the container's may be among them",
                advice: "move it when the host's processors are less busy")
        }
    }

    /// The port is silent: what moved since the capture is captured again, what was not read is, and nothing may be
    /// under way that has no descriptor.
    private func checkConnections(_ network: SourceNetwork) throws {
        do { try capture!.settleLate() } catch EngineError.obstacles(let list) { throw Postponed(list) }
        try network.checkDrained()
    }

    /// Promises the destination that the container does not run here any more. From here on the source waits for the
    /// destination's answer, however long that takes.
    private func promise() throws {
        // What is sent to the process past Apus counts until here.
        let late = capture!.lateStates
        if let reason = QueueLimit.reason(against: late.values.reduce(0) { $0 + $1.queuedBytes }) {
            throw Postponed(why: reason)
        }
        let signals = try step("read signals again") { try process.lateSignals(since: capture!) }
        try step("promise") {
            var promise = WirePromise()
            promise.signals = signals.mapValues(WireProcessSignals.init)
            promise.files = late
            try checkFreeze()
            connection.interval = 50
            connection.silenceLimit = nil
            connection.whileWaiting = { [unowned self] in try lookForDoubt() }
            try source.journal.state(.promised)
            source.isPromised = true
            FaultPoint.reach(.sourcePromisedUnsent)
            try connection.send(.promise, promise)
        }
        source.enter(.promised)
        FaultPoint.reach(.sourcePromised)
    }

    private func awaitRelease() throws {
        // The bridge sends them after the container.
        source.network?.endConnectionHold()
        let released = try steps.measure("wait for release") { () throws -> Checked<WireReleased> in
            try connection.expect(.released)
        }
        // The copy that lives may share this processor.
        ThreadPriority.idle.apply()
        source.enter(.released)
        FaultPoint.reach(.sourceReleased)
        connection.whileWaiting = {}
        noteRelease(at: released.at - staging.clocks.offset, released.steps)
    }

    /// After the promise: a destination that is silent is in doubt, which an operator may end; its word still counts if
    /// it comes.
    private func lookForDoubt() throws {
        let isSilent = connection.silence > Connection.usualSilence
        if isSilent, source.control.resolution != nil {
            throw MigrationError.disconnected(from: connection.peer, "no sign of it, and an operator decided")
        }
        if isSilent == (source.state == .inDoubt) { return }
        source.enter(isSilent ? .inDoubt : .promised)
        source.control.update { [connection] in
            $0.remark =
                isSilent
                ? "no sign of \(connection.peer) for \(Int(Connection.usualSilence)) s; waiting for its word" : nil
        }
    }

    /// Completes the report.
    func noteRelease(at instant: Int64, _ destinationSteps: [WireStep]) {
        let clocks = staging.clocks, frozenAt = limit.frozenAt, decidedAt = source.decidedAt
        var report = source.report
        report.releasedAt = instant
        (report.clock, report.clockLag) = (clocks.words, clocks.lag)
        report.engineDowntime = Double(instant - frozenAt) / 1e6
        report.migrationTime = Double(instant - decidedAt) / 1e6
        report.handoverTime = wantedAt.map { Double(instant - $0) / 1e6 }
        report.handovers.append(
            HandoverReport(start: Double(frozenAt - decidedAt) / 1e6, frozen: report.engineDowntime))
        report.steps = steps.steps.map { StepReport($0, side: "source", frozenAt: frozenAt, clockOffset: 0) }
        report.steps += destinationSteps.map {
            StepReport($0, side: "destination", frozenAt: frozenAt, clockOffset: clocks.offset)
        }
        (report.passes, report.readyAt, report.mirrorAge) = (copier.passes, copier.readyAt, copier.mirrorAge)
        report.events = strategy.events
        report.pagesSent = copier.pagesSent
        report.bytesSent = connection.bytesSent
        source.report = report
    }

    // ---- The way back --------------------------------------------------------------------------------------

    /// Undoes what the freeze has done, so that the source runs; the engine stays in it.
    func letRun(_ way: inout WayBack) {
        let network = source.network
        way.step("giving it back its frames") { try network?.rollback() }
        way.step("taking its connections out of repair") {
            try capture?.releaseLate()
            if network?.isTouched != true, let repairs {
                try source.journal.done(repairs)
                self.repairs = nil
            }
        }
        capture = nil
        way.step("thawing its cgroup") { try cgroup.thaw() }
        way.step("letting its threads go") { try process.letGo() }
        network?.endConnectionHold()
        source.control.gate.open()
        ThreadPriority.normal.apply()
    }

    /// The whole way back: this copy runs on, without a trace of the engine. What cannot be put right stays in the
    /// journal, for the guard.
    func runOn() {
        var way = WayBack(of: source.container.name, source.host.log)
        letRun(&way)
        copier.stopTracking()
        // A pause may last: the guard waits for its end. The search holds the process: held by it in turn, both would
        // stay.
        process.whileWaiting = { [weak search = source.search, pid = source.container.pid] in
            if search?.isPaused == true { throw EngineError.heldUp(task: pid, doing: "being stopped") }
        }
        way.step("removing the engine's traces from it") { try process.disarm() }
        // Of a process that is gone nothing is left to be put right.
        let isTouched = source.network?.isTouched == true || !source.journal.outstanding.isEmpty
        if !source.isGone, !way.failures.isEmpty || isTouched {
            let failures = way.failures.joined(separator: "; ")
            return source.control.update { $0.remark = "not all is put right yet: \(failures)" }
        }
        way.step("settling its journal") { try source.journal.settle() }
    }

    /// Makes ready for the next try: the destination knows that the source runs again.
    func takeBack() throws {
        if toldFrozen { try tellThawed() }
        let needsAnew = sentImage
        limit.frozenAt = 0
        (toldFrozen, sentImage) = (false, false)
        guard needsAnew else { return }
        // The stub has become the process by now: another one is needed, and all of the memory.
        imageGoesAhead = false
        try staging.stage()
        try copier.startAnew()
    }

    /// Tells the destination, and waits until it knows.
    private func tellThawed() throws {
        try trees.sendUnsent(over: connection)
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
    }
}

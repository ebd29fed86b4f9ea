// The freeze, and what follows it at the source. Every microsecond between the first stop and the release counts.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel
import Memory

extension SourceSession {
    func handover() throws {
        let preparedFrom = monotonicNow()
        handoverWantedAt = handoverWantedAt ?? control.triggeredAt ?? monotonicNow()
        let around = try lookAround()
        try trees!.sendChanges(over: connection)
        _ = try process.learnThreads()
        let cgroup = try self.cgroup ?? Cgroup(journal.header.cgroup!)
        self.cgroup = cgroup
        try layout.refresh(advice: true)
        report.stateBytes = try copier.residentPages().bytes
        _ = try strategy.keepUp()
        if let obstacle = try search.find(sent: sentRunState, around: around).first {
            throw Postponed(why: obstacle.description)
        }
        // The next frame has to be the answer to a probe.
        if !clocks.areShared {
            try copier.awaitAnswers(all: true)
            try clocks.refresh(over: connection)
        }
        report.preparation = Double(monotonicNow() - preparedFrom) / 1e6
        // What changed meanwhile goes ahead, so that the freeze begins with as little as can be.
        try checkFreezeLimit(lastPass: try strategy.runUp())
        try noteFreeze()
        try drain()
        try trees!.sendChanges(over: connection)
        try checkFreezeLimit(compared: trees!.compared)
        try log.advance()

        let lastPass = try copier.prepareLastPass()
        defer { lastPass?.wait() }

        // What is being done to the container has effect before the freeze, or on the copy that lives.
        try control.gate.close { try checkCancelled() }
        enter(.frozen)
        ThreadPriority.realTime.apply()
        defer { ThreadPriority.normal.apply() }
        frozenAt = monotonicNow()
        report.frozenAt = frozenAt
        connection.interval = 2
        connection.whileWaiting = { [unowned self] in try checkFreeze() }
        do { try step("stop threads") { try process.freeze() } } catch EngineError.obstacles(let list) {
            throw Postponed(why: list.map(\.description).joined(separator: "; "))
        }
        FaultPoint.reach(.sourceStopped)
        try step("read layout") { _ = try layout.refresh(quick: true) }
        do {
            capture = try captureAll { [copier] in copier.beginLastPass(lastPass) }
            FaultPoint.reach(.sourceCaptured)
            try sendState(lastPass)
        } catch {
            var reason = error
            if case EngineError.obstacles(let list) = error {
                reason = Postponed(why: list.map(\.description).joined(separator: "; "))
            }
            // What the pass took from the tracker is for the next one to send.
            if reason is Postponed { try copier.keepFound(by: lastPass) }
            throw reason
        }
        // Before a socket is put under repair: were the engine to die while the process can run, its next send would
        // fail.
        try step("freeze cgroup") { try freezeCgroup(cgroup) }
        FaultPoint.reach(.sourceFrozen)
        try step("wait until muted") {
            // What was under way when the freeze began is acknowledged first.
            try copier.takeLastAnswers()
            _ = try connection.expect(.muted, WireMuted.self)
        }
        if let network {
            // Seen now, a new connection costs nothing but another attempt; after the next step it costs what B holds.
            try step("look for handshakes") { try checkDrained() }
            try step("redirect frames") { try network.redirect() }
            FaultPoint.reach(.sourceRedirected)
            try step("capture connections") { try capture!.captureConnections() }
            FaultPoint.reach(.sourceRepaired)
            if capture!.hasQueues { try step("wait for frames") { _ = try ReceiveBacklog.drain() } }
            try step("mute port") { try network.silence() }
            FaultPoint.reach(.sourceSilenced)
            try step("check connections") { try checkConnections() }
        }
        if !imageGoesAhead { try sendImage() }
        // What is sent to the process past Apus counts until here.
        let signals = try step("read signals again") { try process.lateSignals(since: capture!.image) }
        try step("promise") {
            var promise = WirePromise()
            promise.signals = signals.ofProcess
            promise.threadSignals = signals.ofThreads.mapValues { records in
                var message = WireSignals()
                message.records = records
                return message
            }
            promise.connections = capture!.connectionImages
            promise.datagrams = capture!.queueImages
            try checkFreeze()
            // From here on nothing but the other side's word ends it, however long that takes.
            connection.interval = 50
            connection.silenceLimit = nil
            connection.whileWaiting = { [unowned self] in try lookForDoubt() }
            try journal.state(.promised)
            promised = true
            FaultPoint.reach(.sourcePromisedUnsent)
            try connection.send(.promise, promise)
        }
        enter(.promised)
        FaultPoint.reach(.sourcePromised)
        // The bridge sends them after the container.
        endConnectionHold()
        let released = try steps.measure("wait for release") { () throws -> Checked<WireReleased> in
            try connection.expect(.released)
        }
        // The copy that lives may share this processor.
        ThreadPriority.idle.apply()
        enter(.released)
        FaultPoint.reach(.sourceReleased)
        connection.whileWaiting = {}
        noteRelease(at: released.at - clocks.offset, released.steps)
    }

    // ---- The limit of the freeze ---------------------------------------------------------------------------

    /// A step of the freeze before the promise.
    private func step<T>(_ name: String, _ body: () throws -> T) throws -> T {
        stepName = name
        try checkFreeze()
        return try steps.measure(name, body)
    }

    /// Has somebody cancelled, or has the container stood still for as long as it may?
    func checkFreeze() throws {
        if control.isCancelled { throw MigrationError.cancelled }
        guard let limit = plan.freezeLimit, Double(monotonicNow() - frozenAt) / 1e6 > limit else { return }
        throw tooLong("the container had stood still for \(Self.text(limit)), its limit, at the step '\(stepName)'")
    }

    /// Changes that take longer to send than the container may stand still would only stop it in vain.
    private func checkFreezeLimit(lastPass took: Double) throws {
        guard let limit = plan.freezeLimit, took > limit else { return }
        throw tooLong(
            "the last changes took \(Self.text(took)) to send, and the container may stand still for \(Self.text(limit))"
        )
    }

    /// Files that have to be compared as a whole with what the destination has may take longer than that, too.
    private func checkFreezeLimit(compared: (names: [String], milliseconds: Double)) throws {
        guard let limit = plan.freezeLimit, compared.milliseconds > limit else { return }
        let took = Self.text(compared.milliseconds), others = compared.names.count - 3
        let names = compared.names.prefix(3).joined(separator: ", ") + (others > 0 ? " and \(others) other files" : "")
        throw Postponed(
            why: "nothing tells which parts of \(names) are written to: to compare all of "
                + "it takes \(took), and the container may stand still for \(Self.text(limit))",
            advice: "give it more by --freeze-limit MS, or none; or keep large files on ext4, which tells")
    }

    private func tooLong(_ why: String) -> Postponed {
        Postponed(why: why, advice: "give it more by --freeze-limit MS, or none, or a faster link between the hosts")
    }

    private static func text(_ milliseconds: Double) -> String { "\(Int(milliseconds.rounded(.up))) ms" }

    /// Looks at what surrounds the container, which takes milliseconds, and goes on copying meanwhile.
    private func lookAround() throws -> RunStateChanges {
        let look = search.lookAround(sent: sentRunState)
        let (pid, cgroup) = (container.pid, host.layout.cgroup(of: container.name))
        let beside = try Beside("apus-around") {
            // Before the look, so that it misses nothing.
            let load = try? ProcessLoad(of: pid)
            return (watch: try RunStateWatch(pid: pid, cgroup: cgroup), changes: try look(), load: load)
        }
        defer { beside.join() }
        while !beside.isOver { if try !strategy.keepUp() { try copier.idle(500) } }
        let (watch, changes, load) = try beside.join().get()
        runStateWatch = watch
        report.loadAtHandover = load
        return changes
    }

    private func freezeCgroup(_ cgroup: Cgroup) throws {
        hasFrozen = true
        let left = plan.freezeLimit.map { max(1, $0 - Double(monotonicNow() - frozenAt) / 1e6) } ?? 5000
        do throws(KernelError) { try cgroup.freeze(timeLimit: .milliseconds(Int(min(left, 5000)))) } catch {
            if error.errno == .timedOut { throw Postponed(why: "\(error)") }
            throw error
        }
    }

    /// After the promise: a destination that is silent is in doubt, which an operator may end; its word still counts if
    /// it comes.
    private func lookForDoubt() throws {
        let isSilent = connection.silence > Connection.usualSilence
        if isSilent, control.resolution != nil {
            throw MigrationError.disconnected(from: connection.peer, "no sign of it, and an operator decided")
        }
        if isSilent == (state == .inDoubt) { return }
        enter(isSilent ? .inDoubt : .promised)
        control.update { [connection] in
            $0.remark =
                isSilent
                ? "no sign of \(connection.peer) for \(Int(Connection.usualSilence)) s; waiting for its word" : nil
        }
    }

    // ---- The state -----------------------------------------------------------------------------------------

    /// Sends what was captured, and the last pages.
    private func sendState(_ lastPass: LastPass?) throws {
        toldFrozen = true
        try connection.send(.frozen, WireFrozen())
        // Before what opens files by their paths: mappings and descriptors. The destination has the tree as it is now
        // by then.
        try step("last file changes") {
            try trees!.findLastChanges(written: capture!.writtenFiles, maps: layout.entries)
        }
        try step("send file changes") { try trees!.sendUnsent(over: connection, between: checkFreeze) }
        try step("send layout") { try copier.sendLayoutIfNew() }
        if imageGoesAhead { try sendImage() }
        let began = monotonicNow()
        try step("last scan") { try copier.finish(lastPass) }
        try step("send pages") { try copier.sendLast(began: began) { [self] in try checkFreeze() } }
        FaultPoint.reach(.sourceLastPass)
    }

    private func sendImage() throws {
        // The last lines were written on the way into the freeze.
        try log.advance()
        try step("send image") {
            sentImage = true
            var handover = WireHandover()
            handover.image = capture!.image
            handover.log = log.unsent
            if runState != sentRunState {
                handover.runState = try JSONEncoder().encode(runState)
                sentRunState = runState
            }
            if let shown = clocks.shownNow { handover.clocks = WireClocks(shown) }
            try connection.send(.handover, handover)
        }
    }

    /// State that no descriptor leads to has to drain before the freeze. Where new connections keep it from that, they
    /// wait outside
    /// while the program comes to those that it has.
    private func drain() throws {
        guard let diagnosis, let network = container.network else { return }
        if try isDrained(diagnosis, within: 0.5) { return }
        do throws(KernelError) {
            let hold = try ConnectionHold(network.spec, network.attachment)
            connectionHold = hold
            try hold.begin()
        } catch {
            let reasons = try TCPDrain.pending(diagnosis).reasons.joined(separator: "; ")
            throw Postponed(why: reasons + "; new connections cannot be held back (\(error))")
        }
        let seconds = 2.0
        if try isDrained(diagnosis, within: seconds) { return }
        let pending = try TCPDrain.pending(diagnosis)
        guard pending.unaccepted.isEmpty else {
            throw MigrationError(
                .refused,
                pending.waitingListeners.map {
                    "\($0), though new ones were held back for \(Int(seconds)) s: its program does not come to them"
                }.joined(separator: "; "), advice: "move it when it is less busy")
        }
        throw Postponed(why: pending.reasons.joined(separator: "; "))
    }

    private func isDrained(_ diagnosis: NetlinkSocket, within seconds: Double) throws -> Bool {
        let deadline = monotonicNow() + Int64(seconds * 1e9)
        while try !TCPDrain.pending(diagnosis).isEmpty {
            if monotonicNow() > deadline { return false }
            try copier.idle(500)
        }
        return true
    }

    private func captureAll(_ threadsAreStill: () -> Void) throws -> Capture {
        if let change = try step("look for changes around it", { runStateWatch?.change() }) {
            throw Postponed(why: change)
        }
        let fresh = try step("look for children") { try search.inFreeze() }
        guard layout.obstacles.isEmpty, fresh.isEmpty else { throw EngineError.obstacles(layout.obstacles + fresh) }
        return try process.capture(layout, descriptors, threadsAreStill: threadsAreStill) {
            steps.note("capture: \($0)", $1, $2)
        }
    }

    /// The port is silent: what moved since the capture is captured again, what was not read is, and nothing may be
    /// under way that has no descriptor.
    private func checkConnections() throws {
        try capture!.settleConnections()
        do { try capture!.captureQueues() } catch EngineError.obstacles(let list) {
            throw Postponed(why: list.map(\.description).joined(separator: "; "))
        }
        try checkDrained()
    }

    private func checkDrained() throws {
        guard let diagnosis else { return }
        let pending = try TCPDrain.pending(diagnosis)
        if !pending.isEmpty { throw Postponed(why: pending.reasons.joined(separator: "; ")) }
    }

    /// Completes the report.
    private func noteRelease(at instant: Int64, _ destinationSteps: [WireStep]) {
        report.releasedAt = instant
        (report.clock, report.clockLag) = (clocks.words, clocks.lag)
        report.engineDowntime = Double(report.releasedAt - report.frozenAt) / 1e6
        report.migrationTime = Double(report.releasedAt - decidedAt) / 1e6
        report.handoverTime = handoverWantedAt.map { Double(report.releasedAt - $0) / 1e6 }
        report.handovers.append(
            HandoverReport(start: Double(report.frozenAt - decidedAt) / 1e6, frozen: report.engineDowntime))
        report.steps = steps.steps.map { StepReport($0, side: "source", frozenAt: report.frozenAt, clockOffset: 0) }
        report.steps += destinationSteps.map {
            StepReport($0, side: "destination", frozenAt: report.frozenAt, clockOffset: clocks.offset)
        }
        (report.passes, report.readyAt, report.mirrorAge) = (copier.passes, copier.readyAt, copier.mirrorAge)
        report.events = strategy.events
        report.pagesSent = copier.pagesSent
        report.bytesSent = connection.bytesSent
    }

    /// The destination runs: this copy ends, without a word to its clients.
    func finish() throws {
        ThreadPriority.idle.apply()
        defer { ThreadPriority.normal.apply() }
        try journal.write(.resolved(.released))
        try endCopy()
        // Should it not arrive, the destination's guard asks.
        try? connection.send(.retired, WireRetired())
        try journal.settle()
        enter(.retired)
    }

    func endCopy() throws {
        process.kill()
        FaultPoint.reach(.sourceKilled)
        try thawCgroup()
        ThreadPriority.normal.apply()
        process.reap()
        copier.stopTracking()
        for _ in 0..<5000 {
            if kill(container.pid, 0) != 0 || isZombie(container.pid) { break }
            usleep(1000)
        }
        try allOf(
            // First: an entry that leads to the destination would outlive the container's stay there.
            { [network] in try network?.retire() },
            { [host, container] in try host.runtime.delete(container.name, force: true) },
            { [host, container] in try host.layout.container(container.name).remove() })
        FaultPoint.reach(.sourceRetired)
    }

    /// The connection failed after the promise: ask the other host until somebody there knows, or an operator decides.
    func settleAfterPromise(_ error: any Error) throws {
        // A destination that still waits for the rest of a message shall know that nothing comes.
        shutdown(connection.descriptor.number, Int32(SHUT_RDWR))
        if state == .released || state == .retired { return try finishWithoutPeer(nil) }
        enter(.inDoubt)
        control.update { $0.remark = "asking \(destination) whether it runs there: \(error)" }
        var said: String?
        var pause: UInt32 = 10_000
        while true {
            let answer = Inquiry.ask(journal.header)
            if said != answer.words {
                said = answer.words
                control.update { $0.remark = answer.words }
            }
            switch answer.state ?? operatorsWord() {
            case .released?, .retired?:
                // When it was released is not known any more: at the latest now.
                noteRelease(at: monotonicNow(), [])
                return try finishWithoutPeer(answer)
            case .aborted?:
                try journal.write(.resolved(.aborted))
                promised = false
                runOn()
                answer.acknowledge()
                enter(.aborted)
                if answer.state == nil { throw MigrationError.resolved }
                if let error = error as? MigrationError, error.kind == .refused || error.kind == .cancelled {
                    throw error
                }
                throw MigrationError.aborted("\(answer.words) (\(error))")
            default:
                usleep(pause)
                pause = min(pause * 2, 500_000)
            }
        }
    }

    private func operatorsWord() -> SessionState? {
        control.resolution.map { $0 == .source ? .aborted : .released }
    }

    private func finishWithoutPeer(_ answer: InquiryAnswer?) throws {
        try journal.write(.resolved(.released))
        try endCopy()
        try journal.settle()
        answer?.acknowledge()
        enter(.retired)
    }
}

/// Does each, whatever becomes of the others.
///
/// - Throws: the first failure.
func allOf(_ steps: (() throws -> Void)...) throws {
    var failure: (any Error)?
    for step in steps { do { try step() } catch { failure = failure ?? error } }
    if let failure { throw failure }
}

/// Has this process ended, though nobody has collected its status?
func isZombie(_ pid: Int32) -> Bool {
    guard let state = try? ProcessFiles.statistics(of: pid).first else { return true }
    return state == "Z"
}

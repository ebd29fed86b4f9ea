// The freeze, and what follows it at the source. Every microsecond between the first stop and the release counts.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel
import Memory

extension SourceSession {
    func handover() throws {
        handoverWantedAt = handoverWantedAt ?? control.triggeredAt ?? monotonicNow()
        try trees!.sendChanges(over: connection)
        _ = try process.learnThreads()
        let cgroup = try self.cgroup ?? Cgroup(journal.header.cgroup!)
        self.cgroup = cgroup
        try layout.refresh(advice: true)
        if let obstacle = try findObstacles().first { throw Postponed(why: obstacle, told: false) }
        report.stateBytes = try Pagemap(pid: container.pid).contents(of: layout.tracked).bytes
        // Clocks drift apart while memory is copied: by these the downtime is told.
        if !sharesClock {
            if tracker != nil { try awaitApplied(all: true) }
            try measureClocksThere()
        }
        // What changed meanwhile goes ahead, so that the freeze begins with as little as can be.
        if tracker != nil { try runUp() }
        try drain()
        if network != nil {
            try holdNetwork()
            try journal.note(.socketRepair(pid: container.pid, reusing: TCPSocket.reusingAddress(pid: container.pid)))
        }
        unsentLog += try newLog()

        let lastPass = try tracker.map { try LastPass($0) }
        defer { lastPass?.wait() }

        enter(.frozen)
        ThreadPriority.realTime.apply()
        defer { ThreadPriority.normal.apply() }
        report.frozenAt = monotonicNow()
        try steps.measure("stop threads") { try process.freeze() }
        FaultPoint.reach(.sourceStopped)
        try steps.measure("read layout") { _ = try layout.refresh(quick: true) }
        do {
            capture = try captureAll { [self] in lastPass?.begin(layout.tracked, mappedAnew: mappedAnew) }
        } catch {
            // What the pass took from the tracker is for the next one to send.
            if let pass = try lastPass?.result() { keep(pass, layout.tracked) }
            guard case EngineError.obstacles(let list) = error else { throw error }
            throw Postponed(why: list.map(\.description).joined(separator: "; "), told: false)
        }
        FaultPoint.reach(.sourceCaptured)
        try connection.send(.frozen, WireFrozen())
        try steps.measure("send layout") { try sendLayoutIfNew() }
        if imageGoesAhead { try sendImage() }

        let sentBefore = connection.bytesSent, pagesBefore = pages.pagesSent, passStart = monotonicNow()
        let last = try steps.measure("last scan") { try finish(lastPass) }
        try steps.measure("send pages") {
            if !last.discards.isEmpty { try connection.sendDiscards(last.discards) }
            try pages.send(last.pages, stopped: true) {}
        }
        note(pass: passStart, pagesBefore, sentBefore)
        FaultPoint.reach(.sourceLastPass)

        // Before a socket is put under repair: were the engine to die while the process can run, its next send would fail.
        try steps.measure("freeze cgroup") { try cgroup.freeze() }
        FaultPoint.reach(.sourceFrozen)
        try steps.measure("wait until muted") { let _: WireMuted = try connection.expect(.muted) }
        if let network {
            // Seen now, a new connection costs nothing but another attempt; after the next step it costs what B holds.
            try steps.measure("look for handshakes") { try checkDrained() }
            try steps.measure("redirect frames") { try network.redirect() }
            FaultPoint.reach(.sourceRedirected)
            try steps.measure("capture connections") { try capture!.captureConnections() }
            FaultPoint.reach(.sourceRepaired)
            if capture!.hasQueues { try steps.measure("wait for frames") { _ = try ReceiveBacklog.drain() } }
            try steps.measure("mute port") { try network.silence() }
            FaultPoint.reach(.sourceSilenced)
            try steps.measure("check connections") { try checkConnections() }
        }
        if !imageGoesAhead { try sendImage() }
        let files = try steps.measure("last file changes") { try trees!.lastChanges() }
        try steps.measure("promise") {
            var promise = WirePromise()
            promise.connections = capture!.connectionImages
            promise.datagrams = capture!.queueImages
            promise.files = files
            if control.isCancelled { throw MigrationError.cancelled }
            // From here on nothing but the other side's word ends it.
            connection.whileWaiting = {}
            try journal.state(.promised)
            promised = true
            FaultPoint.reach(.sourcePromisedUnsent)
            try connection.send(.promise, promise)
        }
        enter(.promised)
        FaultPoint.reach(.sourcePromised)
        let released = try steps.measure("wait for release") { () throws -> WireReleased in
            try connection.expect(.released)
        }
        // The copy that lives may share this processor.
        ThreadPriority.idle.apply()
        enter(.released)
        FaultPoint.reach(.sourceReleased)
        note(released)
    }

    private func sendImage() throws {
        // The last lines were written on the way into the freeze.
        unsentLog += try newLog()
        try steps.measure("send image") {
            var handover = WireHandover()
            handover.image = capture!.image
            handover.log = unsentLog
            if clocksThere != nil { handover.clocks = WireClocks(Clocks.now() + ownClocks) }
            try connection.send(.handover, handover)
        }
    }

    /// State that no descriptor leads to has to drain before the freeze.
    private func drain() throws {
        guard let diagnosis else { return }
        for _ in 0..<500 {
            let pending = try TCPDrain.pending(diagnosis)
            if pending.isEmpty { return }
            usleep(1000)
        }
        throw Postponed(why: try TCPDrain.pending(diagnosis).reasons.joined(separator: "; "), told: false)
    }

    private func captureAll(_ threadsAreStill: () -> Void) throws -> Capture {
        let others = try steps.measure("look for children") { try cgroup!.processes().filter { $0 != container.pid } }
        guard layout.obstacles.isEmpty, others.isEmpty else {
            throw EngineError.obstacles(
                layout.obstacles
                    + others.map {
                        Obstacle(
                            pid: $0, process: "another", subject: "process", reason: "more than one, not carried yet")
                    })
        }
        return try process.capture(layout, descriptors, threadsAreStill: threadsAreStill) {
            steps.note("capture: \($0)", $1, $2)
        }
    }

    private func finish(_ lastPass: LastPass?) throws -> DirtyPass {
        guard let lastPass else {
            var pass = DirtyPass()
            pass.pages = try Pagemap(pid: container.pid).contents(of: layout.tracked)
            return pass
        }
        // What a pass before this one found and nobody has sent yet goes along.
        guard let found = try lastPass.result() else {
            throw MigrationError(.failed, "the last pass over the memory never began, though all else is captured")
        }
        keep(found, layout.tracked)
        defer { (pending, discards) = (AddressRanges(), AddressRanges()) }
        var pass = DirtyPass()
        (pass.pages, pass.discards) = (pending, discards)
        return pass
    }

    /// The port is silent: what moved since the capture is captured again, what was not read is, and nothing may be under way that has no
    /// descriptor.
    private func checkConnections() throws {
        try capture!.settleConnections()
        do { try capture!.captureQueues() } catch EngineError.obstacles(let list) {
            throw Postponed(why: list.map(\.description).joined(separator: "; "), told: true)
        }
        try checkDrained()
    }

    private func checkDrained() throws {
        guard let diagnosis else { return }
        let pending = try TCPDrain.pending(diagnosis)
        if !pending.isEmpty { throw Postponed(why: pending.reasons.joined(separator: "; "), told: true) }
    }

    private func note(_ released: WireReleased) {
        report.releasedAt = released.at - clockOffset
        // By how much the container's clock has leapt ahead.
        if let clocksThere, !sharesClock {
            report.clockLag = ownClocks.monotonic - clocksThere.monotonic - clockOffset
        }
        report.engineDowntime = Double(report.releasedAt - report.frozenAt) / 1e6
        report.migrationTime = Double(report.releasedAt - decidedAt) / 1e6
        report.handoverTime = handoverWantedAt.map { Double(report.releasedAt - $0) / 1e6 }
        report.steps = steps.steps.map { StepReport($0, side: "source", frozenAt: report.frozenAt, clockOffset: 0) }
        report.steps += released.steps.map {
            StepReport($0, side: "destination", frozenAt: report.frozenAt, clockOffset: clockOffset)
        }
        report.pagesSent = pages.pagesSent
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
        try cgroup?.thaw()
        ThreadPriority.normal.apply()
        process.reap()
        tracker?.stop()
        for _ in 0..<5000 where kill(container.pid, 0) == 0 && !isZombie(container.pid) { usleep(1000) }
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
        var pause: UInt32 = 10_000
        while true {
            let answer = Inquiry.ask(destination, migration: id)
            switch answer?.state ?? operatorsWord() {
            case .released?, .retired?:
                report.releasedAt = report.releasedAt == 0 ? monotonicNow() : report.releasedAt
                return try finishWithoutPeer(answer)
            case .aborted?:
                try journal.write(.resolved(.aborted))
                promised = false
                thaw()
                tracker?.stop()
                tracker = nil
                try process.disarm()
                if !networkTouched { try journal.settle() }
                answer?.acknowledge()
                enter(.aborted)
                if answer?.state == nil { throw MigrationError.resolved }
                if let error = error as? MigrationError, error.kind == .refused || error.kind == .cancelled {
                    throw error
                }
                throw MigrationError.aborted("it never ran there (\(error))")
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
    guard let text = try? SmallFile.text("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return true }
    return text[end...].dropFirst(2).first == "Z"
}

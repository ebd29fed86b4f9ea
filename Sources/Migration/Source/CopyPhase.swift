// What happens before the handover: nothing, rounds, or mirroring.
import Engine
import Glibc
import LinuxKernel
import Memory

extension SourceSession {
    func copy() throws {
        switch plan.technique.copy {
        case .none: try awaitTrigger {}
        case .rounds: try copyInRounds()
        case .mirroring: try mirror()
        }
    }

    /// With the at-trigger policy: waits for the trigger, doing something meanwhile.
    private func awaitTrigger(_ meanwhile: () throws -> Void) throws {
        guard plan.handover == .atTrigger else { return }
        while !control.handoverTriggered {
            try checkCancelled()
            try takeAnswers()
            try meanwhile()
            usleep(500)
        }
    }

    func checkCancelled() throws {
        if control.isCancelled { throw MigrationError.cancelled }
        if kill(container.pid, 0) != 0 || isZombie(container.pid) {
            throw EngineError.exited(pid: container.pid, how: "while it was copied")
        }
        if !process.memory.isCurrent { throw EngineError.executed(pid: container.pid) }
        try process.letHeldGo()
    }

    private func arm() throws {
        do {
            tracker = try DirtyTracker(pid: container.pid, userfaultfd: try process.arm())
        } catch EngineError.obstacles(let list) { throw MigrationError.refused(list.map(\.description)) }
        FaultPoint.reach(.sourceArmed)
    }

    // ---- Rounds --------------------------------------------------------------------------------------------

    /// The first round sends everything, each other one what was dirtied since the last. It ends with what the last
    /// look found still to be sent.
    private func copyInRounds() throws {
        try arm()
        passBegan = monotonicNow()
        try pass()
        var pagesBefore = UInt64.max
        for round in 1... {
            passInterval = plan.roundInterval ?? 0
            if plan.handover == .atTrigger, control.handoverTriggered { return }
            if round >= plan.maxRounds { break }
            try awaitInterval()
            passBegan = monotonicNow()
            try scan()
            noteReadiness()
            // Its rounds end there; mirroring goes on until the freeze.
            if wasReady || stops(after: pagesBefore) { break }
            pagesBefore = pending.pages
            try sendPending(began: passBegan)
        }
        passInterval = plan.handover == .atTrigger ? plan.waitInterval : nil
        try awaitTrigger {
            guard isPassDue else { return }
            passBegan = monotonicNow()
            try pass()
        }
    }

    /// Do the plan's rules end the rounds, with what the last look found?
    private func stops(after pagesBefore: UInt64) -> Bool {
        if let pages = plan.stopPages, pending.pages <= UInt64(pages) { return true }
        guard let growth = plan.stopGrowth, pagesBefore != .max else { return false }
        return Double(pending.pages) > Double(pagesBefore) * (1 + growth / 100)
    }

    /// Waits until the next round is due, or the trigger has come.
    private func awaitInterval() throws {
        while !isPassDue {
            if plan.handover == .atTrigger, control.handoverTriggered { return }
            try idle(500)
        }
    }

    /// Whether the next round or sync may begin. A round ends when the link has taken it; of syncs several may be under
    /// way, as long as the destination keeps up.
    private var isPassDue: Bool {
        guard let passInterval, Double(monotonicNow() - passBegan) / 1e6 >= passInterval else { return false }
        return plan.technique.copy == .mirroring ? !isBehind : connection.bytesUnsent == 0
    }

    /// Whether syncs wait: for the link, by its rate, or at the destination, since one has not been answered though it
    /// would have been if nothing were before it. Another one would only wait longer, and the freeze for all of them.
    private var isBehind: Bool {
        guard let first = outstanding.first else { return false }
        guard let shortestAnswer else { return true }
        let now = monotonicNow()
        return linkBusyUntil - now > Self.longestLag || now - first.sent > shortestAnswer + Self.longestLag
    }
    private static let longestLag: Int64 = 1_000_000

    /// Milliseconds that a freeze would take now to send what is known to be dirty and what the link has not taken yet.
    private var residue: Double { Double(UInt64(pending.bytes) + connection.bytesUnsent) / max(throughput, 1) * 1000 }

    private func noteReadiness() {
        wasReady = residue <= plan.readyWithin
        shortestPass = min(shortestPass, lastScan + residue)
        if wasReady, report.readyAt == nil { report.readyAt = Double(monotonicNow() - decidedAt) / 1e6 }
    }

    // ---- Mirroring -----------------------------------------------------------------------------------------

    private func mirror() throws {
        try arm()
        let faults = try faultEvents()
        defer { faults?.stop() }
        report.events = faults == nil ? "scan" : "faults"
        try pass()
        var spacing = plan.minSpacing ?? 1
        var last = AddressRanges(), leastScan = lastScan, shortest = Double.infinity, inVain = 0
        while true {
            passBegan = monotonicNow()
            try scan()
            let found = pending
            leastScan = min(leastScan, lastScan)
            noteReadiness()
            inVain = residue < 0.97 * shortest ? 0 : inVain + 1
            shortest = min(shortest, residue)
            // When syncs get no shorter, the mirror gets no closer: with λ near 1 or above there is nothing to wait
            // for.
            if plan.handover == .whenReady, wasReady || inVain >= Self.mostInVain { return }
            if found.pages >= UInt64(plan.eventPages ?? 1) {
                try sendPending(began: passBegan)
            } else if found.isEmpty, outstanding.isEmpty {
                mirroredUntil = passBegan
            }
            if plan.minSpacing == nil, report.readyAt != nil {
                spacing = Self.adaptedSpacing(
                    pages: found.pages, again: found.intersection(last).pages, scan: lastScan, leastScan: leastScan)
            }
            passInterval = spacing
            last = found
            if plan.handover == .atTrigger, control.handoverTriggered { return }
            try awaitSpacing(spacing, since: passBegan)
            if let faults { try awaitEvent(faults) }
            while isBehind {
                if plan.handover == .atTrigger, control.handoverTriggered { return }
                if try connection.awaitInput(1) { try takeAnswers() } else { try checkCancelled() }
            }
        }
    }

    /// Syncs in a row, none of them shorter, until a handover when ready takes place all the same.
    private static let mostInVain = 8
    /// Milliseconds for which a sync waits at most so that tracking costs the program no more than its share.
    private static let shortSpacing = 50.0

    /// Page faults as the plan wants them, or nil to scan on the clock.
    private func faultEvents() throws -> FaultEvents? {
        if plan.events == .scan { return nil }
        let folders = journal.header.cgroup?.folders ?? []
        if let why = FaultEvents.availability(cgroupFolders: folders) {
            if plan.events == .auto { return nil }
            throw MigrationError.refused([
                "page-fault events are not to be had on \(host.name) (\(why)); choose --events scan or auto"
            ])
        }
        let pages = plan.eventPages ?? (plan.events == .auto ? MigrationPlan.usualEventPages : 1)
        return try FaultEvents(pid: container.pid, cgroupFolders: folders, minimumPages: pages)
    }

    private func awaitSpacing(_ milliseconds: Double, since start: Int64) throws {
        while Double(monotonicNow() - start) / 1e6 < milliseconds {
            try idle(Int32(min(milliseconds * 1000, 500)))
            if plan.handover == .atTrigger, control.handoverTriggered { return }
        }
    }

    /// Sleeps until enough pages have faulted; with `auto` a scan looks now and then at what is fewer, or what no fault
    /// tells of, otherwise no clock runs.
    private func awaitEvent(_ faults: FaultEvents) throws {
        let wake = [connection.descriptor.number, control.wakeup?.number ?? -1, process.pidfd.number]
        let end = plan.events == .auto ? monotonicNow() + 100_000_000 : nil
        while true {
            // A destination that is silent wakes nobody, and who looks too seldom does not notice (`checkSilence`).
            let left = end.map { max(0, Int32(($0 - monotonicNow()) / 1_000_000)) } ?? 250
            if try faults.wait(timeoutMilliseconds: left, wake: wake) != nil || left == 0 { return }
            try checkCancelled()
            try takeAnswers()
            if control.handoverTriggered { return }
        }
    }

    /// Tracking costs the program a fault for each page at its first write after a sync, some 3 µs, and the scan holds
    /// its page table: together at most a twentieth of the time, as far as waiting helps. Up to 50 ms it is waited for
    /// that; beyond, only the pages count that were in the last sync too, since a page that is written once costs the
    /// same whenever the sync comes, while the mirror gets older.
    ///
    /// - Parameters:
    ///   - again: how many of the pages were in the last sync too.
    ///   - scan: milliseconds of this scan; `leastScan`: what a scan takes that finds little.
    static func adaptedSpacing(pages: UInt64, again: UInt64, scan: Double, leastScan: Double) -> Double {
        let ofPages = Double(pages) * 0.003 + scan - leastScan
        let share = pages == 0 ? 0 : Double(again) / Double(pages)
        return max(1, min((ofPages + leastScan) * 20, shortSpacing), min((ofPages * share + leastScan) * 20, 500))
    }

    // ---- One pass ------------------------------------------------------------------------------------------

    func pass() throws {
        let start = monotonicNow()
        try scan()
        try sendPending(began: start)
        try awaitApplied(all: false)
    }

    /// The handover begins: passes back to back, each applied before the next begins, as long as they get shorter.
    /// Whatever went before (a round's interval, a sync's spacing), the freeze then finds what was dirtied in the time
    /// that one small pass takes. Without a run-up the technique only goes on as it would have.
    ///
    /// A burst of writes that begins meanwhile is waited out, if the moment of the handover is ours to choose: what was
    /// short before will be again.
    ///
    /// - Returns: milliseconds that the last pass took, or that what is left would take.
    func runUp() throws -> Double {
        guard plan.runUp > 0 else {
            try keepUp()
            return residue
        }
        try awaitApplied(all: true)
        let begin = monotonicNow(), waitsOut = plan.handover == .whenReady && wasReady
        var shortest = Double.infinity, took = 0.0, inVain = 0
        while Double(monotonicNow() - begin) / 1e6 < plan.runUp {
            let start = monotonicNow()
            try pass()
            try awaitApplied(all: true)
            took = Double(monotonicNow() - start) / 1e6
            if took < 1 { return took }
            inVain = took < 0.97 * shortest ? 0 : inVain + 1
            shortest = min(shortest, took)
            shortestPass = min(shortestPass, took)
            let isBurst = took > max(plan.readyWithin, 4 * shortestPass)
            if inVain >= 2, !(waitsOut && isBurst) { return took }
        }
        return took
    }

    /// Between the steps of the preparation, which take a while: a round or a sync that has come due meanwhile takes
    /// place.
    ///
    /// - Returns: whether one did.
    @discardableResult func keepUp() throws -> Bool {
        guard tracker != nil, isPassDue else { return false }
        try makeDuePass()
        return true
    }

    private func makeDuePass() throws {
        passBegan = monotonicNow()
        try scan()
        let least = plan.technique.copy == .mirroring ? UInt64(plan.eventPages ?? 1) : 0
        if pending.pages >= least { try sendPending(began: passBegan) }
    }

    /// For waits while the handover is prepared: makes the round or the sync that is due, or waits a little.
    func goOnCopying() throws {
        if try !keepUp() { try idle(500) }
    }

    /// Finds what changed; it is pending until it is sent.
    private func scan() throws {
        let start = monotonicNow()
        let (found, areas) = try tracker!.pass(
            stopped: false,
            areas: { [layout] in
                try layout.refresh(quick: true)
                return layout.tracked
            }, between: checkCancelled)
        lastScan = Double(monotonicNow() - start) / 1e6
        keep(found, areas)
        var again = DirtyPass()
        again.pages = try tracker!.contents(of: mappedAnew, in: areas)
        keep(again, areas)
        control.update { $0.lastPassPages = found.pages.pages }
    }

    /// Adds what a pass found to what has to be sent.
    func keep(_ found: DirtyPass, _ areas: [TrackedArea]) {
        let mapped = AddressRanges(areas.map(\.range))
        discards = discards.subtracting(found.pages).union(found.discards).intersection(mapped)
        pending = pending.subtracting(found.discards).union(found.pages).intersection(mapped)
    }

    /// Whose content the destination loses by taking over the layout, though nobody wrote it here: the maps of a
    /// running process may leave out a mapping that its neighbours' changes touch, and show it again the next time.
    var mappedAnew: AddressRanges {
        layout.generation == sentGeneration
            ? AddressRanges() : AddressSpacePlan.mappedAnew(from: sentAreas, to: layout.areas)
    }

    /// Waits until the destination has applied all that was sent.
    func awaitApplied() throws {
        passNumber += 1
        var end = WirePassEnd()
        (end.number, end.began) = (passNumber, monotonicNow())
        outstanding.append((passNumber, 0, end.began, end.began))
        try connection.send(.passEnd, end)
        try awaitApplied(all: true)
    }

    private func sendPending(began: Int64) throws {
        let start = monotonicNow()
        let pagesBefore = pages.pagesSent, bytesBefore = connection.bytesSent
        // The destination maps files by their paths: it needs them where they are now.
        if mapsOtherFiles { try trees!.sendChanges(over: connection) }
        try sendLayoutIfNew()
        if !discards.isEmpty { try connection.sendDiscards(discards) }
        let sending = pending
        (pending, discards) = (AddressRanges(), AddressRanges())
        try pages.send(sending, stopped: false) { [self] in
            try takeAnswers()
            try checkCancelled()
            updateProgress()
            FaultPoint.reach(.sourceCopying)
        }
        passNumber += 1
        var end = WirePassEnd()
        (end.number, end.began) = (passNumber, began)
        let bytes = connection.bytesSent - bytesBefore, now = monotonicNow()
        outstanding.append((passNumber, bytes, start, now))
        linkBusyUntil = max(linkBusyUntil, now) + Int64(Double(bytes) / max(throughput, 1) * 1e9)
        try connection.send(.passEnd, end)
        note(pass: start, pagesBefore, bytesBefore)
        try takeAnswers()
        updateProgress()
    }

    func note(pass start: Int64, _ pagesBefore: UInt64, _ bytesBefore: UInt64) {
        guard report.passes.count < 20000 else { return }
        report.passes.append(
            PassReport(
                start: Double(start - decidedAt) / 1e6, duration: Double(monotonicNow() - start) / 1e6,
                pages: pages.pagesSent - pagesBefore, bytes: connection.bytesSent - bytesBefore))
    }

    /// Does the layout have a mapping of a file that the one at the destination has not?
    private var mapsOtherFiles: Bool {
        guard layout.generation != sentGeneration else { return false }
        let sent = Set(sentAreas.map(\.path))
        return layout.areas.contains { !sent.contains($0.path) }
    }

    func sendLayoutIfNew() throws {
        guard layout.generation != sentGeneration else { return }
        var message = WireLayout()
        message.generation = layout.generation
        message.areas = layout.areas
        (sentGeneration, sentAreas) = (layout.generation, layout.areas)
        try connection.send(.layout, message)
    }

    // ---- Answers -------------------------------------------------------------------------------------------

    /// Waits a little, taking answers as they come.
    func idle(_ microseconds: Int32) throws {
        try checkCancelled()
        if microseconds >= 1000, try connection.awaitInput(microseconds / 1000) { return try takeAnswers() }
        usleep(UInt32(min(microseconds, 500)))
        try takeAnswers()
    }

    private func takeAnswers() throws {
        while connection.hasInput { try takeAnswer() }
        try connection.checkSilence()
    }

    func takeAnswer() throws {
        let frame = try connection.receive()
        guard frame.kind == .passApplied else { throw connection.unexpected(frame, "an acknowledgement") }
        let applied: Checked<WirePassApplied> = try frame.message()
        guard applied.number <= passNumber else {
            throw MigrationError.protocolViolation("an answer to pass \(applied.number) of \(passNumber)")
        }
        let now = monotonicNow()
        // Measured by what has arrived: the socket takes megabytes at once that are not sent yet.
        if let first = outstanding.first, first.bytes > 262_144 {
            throughput = Double(first.bytes) / (Double(now - max(first.began, acknowledgedAt)) / 1e9)
        }
        acknowledgedAt = now
        if let answered = outstanding.last(where: { $0.number <= applied.number }) {
            shortestAnswer = min(shortestAnswer ?? .max, now - answered.sent)
        }
        outstanding.removeAll { $0.number <= applied.number }
        mirroredUntil = applied.began
    }

    /// Flow control: at most three passes are under way; with `all`, none.
    func awaitApplied(all: Bool) throws {
        while outstanding.count > (all ? 0 : 2) {
            if try connection.awaitInput(50) { try takeAnswer() } else { try checkCancelled() }
        }
    }

    private func updateProgress() {
        let now = monotonicNow()
        let elapsed = Double(now - decidedAt) / 1e9
        let age = mirroredUntil.map { Double(now - $0) / 1e6 }
        if plan.technique.copy == .mirroring, let age, report.mirrorAge.count < 20000 {
            report.mirrorAge.append(.init(at: elapsed * 1000, age: age))
        }
        control.update { progress in
            progress.passes = Int(passNumber)
            progress.pagesSent = pages.pagesSent
            progress.bytesSent = connection.bytesSent
            progress.mirrorAge = plan.technique.copy == .mirroring ? age : nil
        }
    }
}

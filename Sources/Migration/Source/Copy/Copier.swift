// One container's memory on its way: what changed is looked for and sent; what is still to be sent, and what is under
// way, is kept account of.
import Engine
import Glibc
import LinuxKernel
import Memory

/// Copies the memory of a running process, pass by pass. When a pass is made is the copy phase's matter.
final class Copier {
    private let plan: MigrationPlan
    private let process: SourceProcess
    private let layout: AddressSpaceReader
    private let connection: Connection
    private let control: MigrationControl
    private let pages: PageSender
    /// CLOCK_MONOTONIC nanoseconds of the migration's decision.
    private let decidedAt: Int64
    /// Throws what ends the migration: its cancellation, the end of the container.
    let check: () throws -> Void
    /// Sends the changes of the container's files; memory that maps them needs them there.
    var sendFiles: () throws -> Void = {}

    /// nil: nothing is tracked, all of the memory is sent at once in the freeze.
    private var tracker: DirtyTracker?
    private var flow = FlowControl()
    /// Pages known to be dirty, and pages known to be empty, that have not been sent.
    private(set) var pending = AddressRanges()
    private var discards = AddressRanges()
    /// The layout that the destination has, or will have when it gets there.
    private var sentGeneration: UInt64 = 0
    private var sentAreas: [MemoryArea] = []

    /// Milliseconds that the last look for changes took.
    private(set) var lastScan = 0.0
    /// Whether that found what was left short enough for a handover.
    private(set) var isReady = false
    /// Milliseconds from the decision to the first look that did; nil: none has.
    private(set) var readyAt: Double?
    /// Milliseconds of the shortest pass so far.
    var shortestPass = Double.infinity
    /// Everything that was dirty before this instant is at the destination.
    private var mirroredUntil: Int64?
    private(set) var passes: [PassReport] = []
    private(set) var mirrorAge: [MigrationReport.MirrorAge] = []
    private static let longestSeries = 20_000

    init(
        _ plan: MigrationPlan, _ process: SourceProcess, _ layout: AddressSpaceReader, _ connection: Connection,
        _ control: MigrationControl, decidedAt: Int64, check: @escaping () throws -> Void
    ) {
        (self.plan, self.process, self.layout, self.connection) = (plan, process, layout, connection)
        (self.control, self.decidedAt, self.check) = (control, decidedAt, check)
        pages = PageSender(process.memory, .firstProcess, connection)
    }

    var pagesSent: UInt64 { pages.pagesSent }

    /// Pages that would have to be carried now.
    func residentPages() throws -> AddressRanges { try Pagemap(pid: process.pid).contents(of: layout.tracked) }

    // ---- Tracking ------------------------------------------------------------------------------------------

    /// Begins to track what changes.
    func arm() throws {
        do {
            tracker = try DirtyTracker(pid: process.pid, userfaultfd: try process.arm())
        } catch EngineError.obstacles(let list) { throw MigrationError.refused(list.map(\.description)) }
        FaultPoint.reach(.sourceArmed)
    }

    var isTracking: Bool { tracker != nil }

    func stopTracking() {
        tracker?.stop()
        tracker = nil
    }

    /// Finds what changed; it is pending until it is sent.
    func scan() throws {
        let start = monotonicNow()
        let (found, areas) = try tracker!.pass(
            stopped: false,
            areas: { [layout] in
                try layout.refresh(quick: true)
                return layout.tracked
            }, between: check)
        lastScan = Double(monotonicNow() - start) / 1e6
        keep(found, areas)
        var again = DirtyPass()
        again.pages = try tracker!.contents(of: mappedAnew, in: areas)
        keep(again, areas)
        control.update { $0.lastPassPages = found.pages.pages }
    }

    /// Adds what a pass found to what has to be sent.
    private func keep(_ found: DirtyPass, _ areas: [TrackedArea]) {
        let mapped = AddressRanges(areas.map(\.range))
        discards = discards.subtracting(found.pages).union(found.discards).intersection(mapped)
        pending = pending.subtracting(found.discards).union(found.pages).intersection(mapped)
    }

    /// Whose content the destination loses by taking over the layout, though nobody wrote it here: the maps of a
    /// running process may leave out a mapping that its neighbours' changes touch, and show it again the next time.
    private var mappedAnew: AddressRanges {
        layout.generation == sentGeneration
            ? AddressRanges() : AddressSpacePlan.mappedAnew(from: sentAreas, to: layout.areas)
    }

    // ---- Sending -------------------------------------------------------------------------------------------

    /// Looks for what changed and sends it.
    func pass() throws {
        let start = monotonicNow()
        try scan()
        try sendPending(began: start)
        try awaitAnswers()
    }

    /// Sends what is pending, as one pass.
    ///
    /// - Parameter began: when the look that found it began.
    func sendPending(began: Int64) throws {
        let start = monotonicNow()
        let pagesBefore = pages.pagesSent, bytesBefore = connection.bytesSent
        // The destination maps files by their paths: it needs them where they are now.
        if mapsOtherFiles { try sendFiles() }
        try sendLayoutIfNew()
        if !discards.isEmpty { try pages.discard(discards) }
        let sending = pending
        (pending, discards) = (AddressRanges(), AddressRanges())
        try pages.send(sending, stopped: false) { [self] in
            try takeAnswers()
            try check()
            updateProgress()
            FaultPoint.reach(.sourceCopying)
        }
        let number = flow.sent(connection.bytesSent - bytesBefore, began: start, at: monotonicNow())
        try connection.send(.passEnd, WirePassEnd(number, began: began))
        note(pass: start, pagesBefore, bytesBefore)
        try takeAnswers()
        updateProgress()
    }

    /// Asks the destination to say when it has applied all that was sent, and waits for that.
    func awaitApplied() throws {
        let now = monotonicNow()
        try connection.send(.passEnd, WirePassEnd(flow.sent(0, began: now, at: now), began: now))
        try awaitAnswers(all: true)
    }

    private func note(pass start: Int64, _ pagesBefore: UInt64, _ bytesBefore: UInt64) {
        guard passes.count < Self.longestSeries else { return }
        passes.append(
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
        message.space = noteLayoutSent()
        try connection.send(.layout, message)
    }

    /// The layout as it is now goes on its way.
    func noteLayoutSent() -> WireSpaceLayout {
        (sentGeneration, sentAreas) = (layout.generation, layout.areas)
        return WireSpaceLayout.with { ($0.memory, $0.areas) = (MemoryIdentity.firstProcess.number, sentAreas) }
    }

    // ---- The freeze ----------------------------------------------------------------------------------------

    /// Makes ready for the pass over the stopped process; nil: there is none, all of the memory is sent.
    func prepareLastPass() throws -> LastPass? { try tracker.map { try LastPass($0) } }

    /// Has the last pass begin; the process is stopped.
    func beginLastPass(_ pass: LastPass?) { pass?.begin(layout.tracked, mappedAnew: mappedAnew) }

    /// Waits for what the last pass found. It is for the next one to send if this handover does not come about.
    func finish(_ pass: LastPass?) throws {
        guard let pass else {
            pending = try residentPages()
            return
        }
        guard let found = try pass.result() else {
            throw MigrationError(.failed, "the last pass over the memory never began, though all else is captured")
        }
        keep(found, layout.tracked)
    }

    /// Keeps what the last pass found for the next one, since this handover does not come about.
    func keepFound(by pass: LastPass?) throws {
        if let found = try pass?.result() { keep(found, layout.tracked) }
    }

    /// Sends the last pages; what was pending goes along.
    ///
    /// - Parameter began: when the wait for the last pass began.
    func sendLast(began: Int64, between: () throws -> Void) throws {
        let pagesBefore = pages.pagesSent, bytesBefore = connection.bytesSent
        if !discards.isEmpty { try pages.discard(discards) }
        try pages.send(pending, stopped: true, between: between)
        (pending, discards) = (AddressRanges(), AddressRanges())
        note(pass: began, pagesBefore, bytesBefore)
    }

    /// The destination has begun anew, or is going to answer no more to what was sent.
    func forgetUnanswered() { flow.forget() }

    /// The destination has none of the memory any more.
    func startAnew() throws {
        guard let tracker else { return }
        pending = try tracker.contents(of: AddressRanges(layout.tracked.map(\.range)), in: layout.tracked)
        discards = AddressRanges()
    }

    // ---- What is under way ---------------------------------------------------------------------------------

    /// Milliseconds that a freeze would take now to send what is known to be dirty and what the link has not taken yet.
    var residue: Double {
        Double(UInt64(pending.bytes) + connection.bytesUnsent) / max(flow.throughput, 1) * 1000
    }

    func noteReadiness() {
        isReady = residue <= plan.readyWithin
        shortestPass = min(shortestPass, lastScan + residue)
        if isReady, readyAt == nil { readyAt = Double(monotonicNow() - decidedAt) / 1e6 }
    }

    /// If nothing was dirty when this look began, and nothing is under way, the mirror is in sync.
    func noteInSync(at began: Int64) {
        if pending.isEmpty, flow.underWay == 0 { mirroredUntil = began }
    }

    var isBehind: Bool { flow.isBehind(at: monotonicNow()) }
    /// The link has taken everything.
    var isLinkFree: Bool { connection.bytesUnsent == 0 }

    /// Waits a little, taking answers as they come.
    func idle(_ microseconds: Int32) throws {
        try check()
        if microseconds >= 1000, try connection.awaitInput(microseconds / 1000) { return try takeAnswers() }
        usleep(UInt32(min(microseconds, 500)))
        try takeAnswers()
    }

    func takeAnswers() throws {
        while connection.hasInput { try takeAnswer() }
        try connection.checkSilence()
    }

    private func takeAnswer() throws {
        let frame = try connection.receive()
        guard frame.kind == .passApplied else { throw connection.unexpected(frame, "an acknowledgement") }
        let applied: Checked<WirePassApplied> = try frame.message()
        guard applied.number <= flow.lastNumber else {
            throw MigrationError.protocolViolation("an answer to pass \(applied.number) of \(flow.lastNumber)")
        }
        flow.answered(applied.number, at: monotonicNow())
        mirroredUntil = applied.began
    }

    /// Flow control: at most two passes are under way when it returns; with `all`, none.
    func awaitAnswers(all: Bool = false) throws {
        while flow.underWay > (all ? 0 : 2) {
            if try connection.awaitInput(50) { try takeAnswer() } else { try check() }
        }
    }

    /// In the freeze: what was under way when it began is answered.
    func takeLastAnswers() throws { while flow.underWay > 0 { try takeAnswer() } }

    /// Waits for an answer, for a millisecond at most.
    func awaitAnswer() throws {
        if try connection.awaitInput(1) { try takeAnswers() } else { try check() }
    }

    private func updateProgress() {
        let now = monotonicNow()
        let age = plan.technique.copy == .mirroring ? mirroredUntil.map { Double(now - $0) / 1e6 } : nil
        if let age, mirrorAge.count < Self.longestSeries {
            mirrorAge.append(.init(at: Double(now - decidedAt) / 1e6, age: age))
        }
        control.update { progress in
            progress.passes = Int(flow.lastNumber)
            progress.pagesSent = pages.pagesSent
            progress.bytesSent = connection.bytesSent
            progress.mirrorAge = age
        }
    }
}

extension WirePassEnd {
    init(_ number: UInt64, began: Int64) {
        self.init()
        (self.number, self.began) = (number, began)
    }
}

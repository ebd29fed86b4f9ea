// How a process arrives: its memory, then, in the freeze, its state; and the release.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel
import Memory

/// Turns the stub of a container into the process that is sent.
final class Arrival {
    private let context: DestinationContext
    private let container: ArrivingContainer
    private let delegate: any DestinationDelegate
    private var connection: Connection { context.connection }
    private var control: MigrationControl { context.control }
    private var journal: Journal { context.journal }
    private var steps: StepClock { context.steps }
    /// What the stub has become; nil: a stub still.
    private var tree: CheckedTree?
    /// The process runs here, or may.
    private(set) var isReleased = false

    init(_ context: DestinationContext, _ container: ArrivingContainer, _ delegate: any DestinationDelegate) {
        (self.context, self.container, self.delegate) = (context, container, delegate)
    }

    /// From the acceptance of the offer to the end of the source's copy.
    func run() throws {
        while true {
            let frame = try connection.receive()
            switch frame.kind {
            case .clockProbe: try answerProbe(frame)
            case .tree: try container.receiveTree(frame)
            case .stage:
                try stage(try frame.message())
                return try copy()
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

    private func stage(_ stage: Checked<WireStage>) throws {
        try container.stage(stage)
        try connection.send(.staged, WireStaged())
        control.update { $0.state = .staged }
        ThreadPriority.preferred.apply()
        FaultPoint.reach(.destinationStaged)
    }

    // ---- Copy and handover ---------------------------------------------------------------------------------

    private func copy() throws {
        while true {
            // Said to the source in words it can rely on: whatever it may have promised meanwhile, this never runs
            // here.
            if control.isCancelled { throw MigrationError.cancelled }
            let frame = try connection.receive()
            switch frame.kind {
            case .pages:
                try pages.apply(frame.payload)
                FaultPoint.reach(.destinationCopying)
            case .tree: try steps.measure("apply file changes") { try container.receiveTree(frame) }
            case .discard: try pages.discard(frame.payload)
            case .layout: try changeLayout(try frame.message())
            case .clockProbe: try answerProbe(frame)
            case .passEnd: try acknowledge(try frame.message())
            case .frozen: try holdFrames()
            case .thawed: try takeBack()
            case .stage: try stage(try frame.message())
            case .handover: try restore(try steps.measure("read image") { try frame.message(WireHandover.self) })
            case .threads: try restore(try steps.measure("read threads") { try frame.message(WireThreads.self) })
            case .promise: return try complete(try steps.measure("read promise") { try frame.message() })
            case .abort:
                // Its sender has not promised anything.
                context.mayBePromised = false
                throw connection.unexpected(frame, "pages or the handover")
            default: throw connection.unexpected(frame, "pages or the handover")
            }
        }
    }

    // The table of states lets nothing come before the stage; a hole in it would be no reason to trap.
    private var pages: PageReceiver {
        get throws {
            guard let pages = container.pages else { throw MigrationError.protocolViolation("pages before the stage") }
            return pages
        }
    }
    private var stub: StubProcess {
        get throws {
            guard let stub = container.stub else { throw MigrationError.protocolViolation("state before the stage") }
            return stub
        }
    }

    private func changeLayout(_ message: Checked<WireLayout>) throws {
        let memory = MemoryIdentity(message.space.memory), pages = try pages
        guard pages.has(memory) else {
            throw MigrationError.protocolViolation("a layout of memory \(memory.number), which nothing has")
        }
        let layout = try CheckedLayout(message.space.areas), stub = try stub, old = stub.layout
        try steps.measure("change layout") { try stub.change(to: layout) }
        pages.layoutChanged(memory, from: old, to: stub.layout)
    }

    private func acknowledge(_ end: Checked<WirePassEnd>) throws {
        var applied = WirePassApplied()
        (applied.number, applied.began) = (end.number, end.began)
        try connection.send(.passApplied, applied)
    }

    private func holdFrames() throws {
        ThreadPriority.realTime.apply()
        try journal.state(.frozen)
        context.mayBePromised = true
        // The promise may come whatever happens to the source: its silence ends nothing from here on.
        connection.silenceLimit = nil
        try steps.measure("hold frames") { try container.network?.accept() }
        try connection.send(.muted, WireMuted())
        FaultPoint.reach(.destinationMuted)
    }

    /// The source runs again. A stub that has become the process is of no use any more.
    private func takeBack() throws {
        ThreadPriority.preferred.apply()
        try journal.state(.copying)
        (context.mayBePromised, connection.silenceLimit) = (false, Connection.usualSilence)
        try container.network?.decline()
        if tree != nil {
            tree = nil
            try container.drop()
        }
        try connection.send(.thawed, WireFrozen())
    }

    /// Makes of the stub what can be made before the source's last word; a source that thaws takes it back.
    private func restore(_ handover: Checked<WireHandover>) throws {
        let tree = try CheckedTree(handover.tree)
        self.tree = tree
        let stub = try stub
        if let clocks = container.clocks, handover.hasClocks {
            try steps.measure("clocks") { try Self.await(handover.clocks.clocks, showing: clocks) }
        }
        try container.setRunState(handover.runState, stub.pid)
        try stub.restore(tree, container.tools) { steps.note("restore: \($0)", $1, $2) }
        if container.haveFilesMoved { try steps.measure("check mapped files") { try stub.checkMappedFiles() } }
        try container.write(toLog: handover.log)
    }

    private func restore(_ threads: Checked<WireThreads>) throws {
        try tree?.add(threads.processes)
        guard let tree else { throw MigrationError.protocolViolation("threads before the image") }
        let claims = tree.capabilities(beyond: container.config)
        guard claims.isEmpty else { throw MigrationError.refused(claims) }
        try stub.restoreThreads(tree) { steps.note("restore: \($0)", $1, $2) }
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

    // ---- The release ---------------------------------------------------------------------------------------

    private func complete(_ promise: Checked<WirePromise>) throws {
        let stub = try stub, network = container.network
        connection.whileWaiting = {}
        guard var tree else { throw MigrationError.protocolViolation("a promise without an image") }
        try tree.complete(promise.files)
        let signals = promise.signals.mapValues(LateSignals.init)
        try tree.check(signals)
        try stub.finish(tree, container.tools, signals) { steps.note("finish: \($0)", $1, $2) }
        FaultPoint.reach(.destinationPrepared)
        try journal.state(.releasing)
        FaultPoint.reach(.destinationReleasing)
        try steps.measure("disarm") { try stub.disarm() }
        try journal.write(.disarmed)
        FaultPoint.reach(.destinationDisarmed)
        isReleased = true
        try steps.measure("open port") { try network?.open() }
        try steps.measure("release") { try stub.release() }
        let at = monotonicNow()
        FaultPoint.reach(.destinationReleased)
        ThreadPriority.normal.apply()
        try journal.state(.released)
        tellRelease(at)
        awaitRetirement()
        try? network?.finish()
        control.update { $0.state = .retired }
        try? journal.settle()
    }

    private func tellRelease(_ instant: Int64) {
        var message = WireReleased()
        message.at = instant
        message.steps = steps.steps
        // Before the source is told: who hears from it that the container has moved may move it on.
        control.update { $0.state = .released }
        // Should it not arrive, the source asks.
        try? connection.send(.released, message)
        FaultPoint.reach(.destinationTold)
        let offer = context.offer
        delegate.didReceive(migration: offer.migration, container.running, from: offer.sourceHost)
    }

    /// The source tells when its copy is gone; whether it does or not, this one runs.
    private func awaitRetirement() {
        do { try connection.expect(.retired, WireRetired.self) } catch {
            let host = context.host
            Recovery.remember(journal.header, .released, in: host.journals)
            // It may have ended its copy all the same, and have nothing to ask.
            try? Recovery.forgetIfUnasked(journal.header, host)
        }
    }
}

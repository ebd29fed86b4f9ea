// The end at the source: its copy ends, because the container runs at the destination. Whether it does, only the
// destination can tell after the promise: where the connection fails, the source asks until it has an answer.
import Containers
import Engine
import Glibc
import LinuxKernel

/// Ends the source's copy, or learns that it has to run on.
struct Commit {
    private let source: SourceContext
    private let copier: Copier
    private let handover: Handover
    private var journal: Journal { source.journal }

    init(_ source: SourceContext, _ copier: Copier, _ handover: Handover) {
        (self.source, self.copier, self.handover) = (source, copier, handover)
    }

    /// The destination runs: this copy ends, without a word to its clients.
    func finish() throws {
        ThreadPriority.idle.apply()
        defer { ThreadPriority.normal.apply() }
        try journal.write(.resolved(.released))
        try endCopy()
        // Should it not arrive, the destination's guard asks.
        try? source.connection.send(.retired, WireRetired())
        try journal.settle()
        source.enter(.retired)
    }

    private func endCopy() throws {
        let (process, pid) = (source.process, source.container.pid)
        process.kill()
        FaultPoint.reach(.sourceKilled)
        try handover.cgroup.thaw()
        ThreadPriority.normal.apply()
        process.reap()
        copier.stopTracking()
        for _ in 0..<5000 {
            if kill(pid, 0) != 0 || isZombie(pid) { break }
            usleep(1000)
        }
        try allOf(
            // First: an entry that leads to the destination would outlive the container's stay there.
            { [source] in try source.network?.retire() },
            { [source] in try source.host.runtime.delete(source.container.name, force: true) },
            { [source] in try source.directory.remove() })
        FaultPoint.reach(.sourceRetired)
    }

    /// The connection failed after the promise: asks the other host until somebody there knows, or an operator decides.
    ///
    /// - Throws: why it did not happen, when this copy runs on.
    func settle(after error: any Error) throws {
        let (control, state) = (source.control, source.state)
        // A destination that still waits for the rest of a message shall know that nothing comes.
        shutdown(source.connection.descriptor.number, Int32(SHUT_RDWR))
        if state == .released || state == .retired { return try finishWithoutPeer(nil) }
        source.enter(.inDoubt)
        control.update { $0.remark = "asking \(source.destination) whether it runs there: \(error)" }
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
                handover.noteRelease(at: monotonicNow(), [])
                return try finishWithoutPeer(answer)
            case .aborted?:
                try journal.write(.resolved(.aborted))
                source.isPromised = false
                handover.runOn()
                answer.acknowledge()
                source.enter(.aborted)
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
        source.control.resolution.map { $0 == .source ? .aborted : .released }
    }

    private func finishWithoutPeer(_ answer: InquiryAnswer?) throws {
        try journal.write(.resolved(.released))
        try endCopy()
        try journal.settle()
        answer?.acknowledge()
        source.enter(.retired)
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

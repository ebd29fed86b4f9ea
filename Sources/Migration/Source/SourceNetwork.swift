// A container's network at the source: its address, its frames, and connections that its program has not come to.
import Containers
import LinuxKernel

/// What a migration does to a container's network at the source.
final class SourceNetwork {
    private let record: ContainerNetworkRecord
    private let handover: SourceHandover
    private let diagnosis: NetlinkSocket
    private let control: MigrationControl
    /// New connections wait for the end of the handover.
    private var connectionHold: ConnectionHold?
    /// Something has to be put right before the container runs on.
    private(set) var isTouched = false

    init(_ record: ContainerNetworkRecord, _ control: MigrationControl) throws {
        (self.record, self.control) = (record, control)
        handover = try SourceHandover(record.spec, record.attachment)
        diagnosis = try NetlinkSocket(.socketDiagnosis, in: NetworkNamespace(opening: record.attachment.namespace))
    }

    /// Nothing that bridges forget while the container is silent may be flooded when the destination has an entry for
    /// it too.
    func holdAddress() throws {
        isTouched = true
        try handover.hold()
    }

    /// See `SourceHandover`.
    func redirect() throws { try handover.redirect() }
    func silence() throws { try handover.silence() }
    func retire() throws { try handover.retire() }

    func rollback() throws {
        guard isTouched else { return }
        try handover.rollback()
        isTouched = false
    }

    // ---- Connections without a descriptor ------------------------------------------------------------------

    /// State that no descriptor leads to has to drain before the freeze. Where new connections keep it from that, they
    /// wait outside while the program comes to those that it has.
    ///
    /// - Parameter idle: called while it waits.
    func drain(idle: () throws -> Void) throws {
        if try isDrained(within: 0.5, idle) { return }
        do throws(KernelError) {
            let hold = try ConnectionHold(record.spec, record.attachment)
            connectionHold = hold
            try hold.begin()
        } catch {
            let reasons = try TCPDrain.pending(diagnosis).reasons.joined(separator: "; ")
            throw Postponed(why: reasons + "; new connections cannot be held back (\(error))")
        }
        let seconds = 2.0
        if try isDrained(within: seconds, idle) { return }
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

    private func isDrained(within seconds: Double, _ idle: () throws -> Void) throws -> Bool {
        let deadline = monotonicNow() + Int64(seconds * 1e9)
        while try !TCPDrain.pending(diagnosis).isEmpty {
            if monotonicNow() > deadline { return false }
            try idle()
        }
        return true
    }

    /// In the freeze nobody waits.
    func checkDrained() throws {
        let pending = try TCPDrain.pending(diagnosis)
        if !pending.isEmpty { throw Postponed(why: pending.reasons.joined(separator: "; ")) }
    }

    /// The bridge sends them to wherever the container is now.
    func endConnectionHold() {
        do { try connectionHold?.end() } catch {
            control.update { $0.remark = "new connections were held back and begin a second late: \(error)" }
        }
        connectionHold = nil
    }
}

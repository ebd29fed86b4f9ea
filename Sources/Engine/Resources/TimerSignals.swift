// Signals of periodic timers that wait to be taken: how often the timer expired meanwhile.
import LinuxKernel

/// The kernel counts the expiries of a timer whose signal waits, tells the number to whoever takes the signal, and to
/// nobody else. So each such signal is taken and queued again, with the number in it; the timer runs on by itself.
enum TimerSignals {
    private static let timerCode = -2  // SI_TIMER
    private static let recordSize = 128

    /// Adds the calls for the signals that wait for the process, to run in its leader.
    static func settleShared(_ pid: Int32, inner: Int32, _ batch: inout CallBatch) throws(KernelError) {
        let shared = try Tracee(tid: pid).pendingSignals(ofProcess: true)
        if numbers(of: shared).isEmpty { return }
        // Those of the leader's own would be taken first.
        let own = Set(try Tracee(tid: pid).pendingSignals(ofProcess: false).map { $0[0] })
        settle(shared, numbers(of: shared).subtracting(own), &batch) { record, signal, batch in
            batch.call(
                .rtSigqueueinfo, .int(inner), .int(signal), .address(record), doing: "queueing signal \(signal) again")
        }
    }

    /// Adds the calls for the signals that wait for a thread, to run in it.
    static func settleOwn(_ tid: Int32, inner: (process: Int32, thread: Int32), _ batch: inout CallBatch)
        throws(KernelError)
    {
        let own = try Tracee(tid: tid).pendingSignals(ofProcess: false)
        settle(own, numbers(of: own), &batch) { record, signal, batch in
            batch.call(
                .rtTgsigqueueinfo, .int(inner.process), .int(inner.thread), .int(signal), .address(record),
                doing: "queueing signal \(signal) again")
        }
    }

    private static func numbers(of records: [[UInt8]]) -> Set<UInt8> {
        Set(
            records.filter { $0.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8, as: Int32.self) } == timerCode }
                .map { $0[0] })
    }

    /// All of one number are taken and queued in their order, so that it stays.
    private static func settle(
        _ records: [[UInt8]], _ signals: Set<UInt8>, _ batch: inout CallBatch,
        queue: (CallBatch.DataReference, UInt8, inout CallBatch) -> Void
    ) {
        for signal in signals.sorted() {
            let set = batch.words([1 << (UInt64(signal) - 1)]), atOnce = batch.words([0, 0])
            let waiting = records.filter { $0[0] == signal }.map { _ in batch.space(recordSize) }
            for record in waiting {
                batch.call(
                    .rtSigtimedwait, .address(set), .address(record), .address(atOnce), .value(8),
                    doing: "taking signal \(signal)")
            }
            for record in waiting { queue(record, signal, &batch) }
        }
    }
}

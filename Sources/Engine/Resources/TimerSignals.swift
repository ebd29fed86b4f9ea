// Signals of timers that wait to be taken: how often the timer expired meanwhile, and those that come too early.
import Foundation
import Glibc
import LinuxKernel

/// The kernel counts the expiries of a timer whose signal waits, tells the number to whoever takes the signal, and to
/// nobody else. So each such signal is taken and queued again, with the number in it; the timer runs on by itself.
///
/// A timer may also expire between the question for its time and the look at the signals that wait. The image would
/// then have the time that was left and the expiry, and the destination would make the expiry once more.
struct TimerSignals {
    private static let timerCode: Int32 = -2, kernelCode: Int32 = 0x80  // SI_TIMER, SI_KERNEL
    private static let recordSize = 128
    /// Signals that one batch settles: as many as have room in a thread's slot.
    private static let mostAtOnce = 8

    /// When the timers were asked, at the earliest.
    private let begun = monotonicNow()
    /// What a timer told was true at some instant of so many nanoseconds.
    private var window: Int64 = 0
    /// What waited before the timers were asked, by task; nil: for the process as a whole.
    private var before: [Int32?: [[UInt8]]] = [:]

    /// Settles the signals that wait for a stopped process and its threads. No timer has been asked for its time yet.
    init(of process: SourceProcess, inner: Int32) throws {
        before[nil] = try Tracee(tid: process.pid).pendingSignals(ofProcess: true)
        for thread in process.threads {
            before[thread.tracee.tid] = try thread.tracee.pendingSignals(ofProcess: false)
        }
        // Those of the leader's own would be taken first.
        let own = Set((before[process.pid] ?? []).map { $0[0] })
        if let shared = before[nil], !Self.numbers(of: shared).subtracting(own).isEmpty {
            try Self.settle(shared, Self.numbers(of: shared).subtracting(own), process, 0) { record, signal, batch in
                batch.call(
                    .rtSigqueueinfo, .int(inner), signal, .address(record), must: false, doing: "queueing it again")
            }
            before[nil] = try Tracee(tid: process.pid).pendingSignals(ofProcess: true)
        }
        for (index, thread) in process.threads.enumerated() {
            let tid = thread.tracee.tid, waiting = before[tid] ?? []
            if Self.numbers(of: waiting).isEmpty { continue }
            let innerTID = try process.innerTID(of: tid)
            try Self.settle(waiting, Self.numbers(of: waiting), process, index) { record, signal, batch in
                batch.call(
                    .rtTgsigqueueinfo, .int(inner), .int(innerTID), signal, .address(record), must: false,
                    doing: "queueing it again")
            }
            before[tid] = try thread.tracee.pendingSignals(ofProcess: false)
        }
    }

    /// The timers have been asked for their times.
    mutating func timersHaveTold() { window = monotonicNow() - begun }

    private static func code(of record: some Collection<UInt8>) -> Int32 {
        Array(record.prefix(12)).withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8, as: Int32.self) }
    }

    private static func numbers(of records: [[UInt8]]) -> Set<UInt8> {
        Set(records.filter { code(of: $0) == timerCode }.map { $0[0] })
    }

    /// All of one number are taken and queued in their order, so that it stays. One that the kernel does not give,
    /// because its timer has been set anew since, is not queued either: nobody would have got it.
    private static func settle(
        _ records: [[UInt8]], _ signals: Set<UInt8>, _ process: SourceProcess, _ thread: Int,
        queue: (CallBatch.DataReference, CallBatch.Argument, inout CallBatch) -> Int
    ) throws {
        for signal in signals.sorted() {
            let count = records.count { $0[0] == signal }
            for start in stride(from: 0, to: count, by: mostAtOnce) {
                var batch = CallBatch()
                let set = batch.words([1 << (UInt64(signal) - 1)]), atOnce = batch.words([0, 0])
                let taken = (start..<min(start + mostAtOnce, count)).map { _ in
                    let record = batch.space(recordSize)
                    let call = batch.call(
                        .rtSigtimedwait, .address(set), .address(record), .address(atOnce), .value(8), must: false,
                        doing: "taking signal \(signal)")
                    return (record, call)
                }
                // The number of a signal that was not given is an error, which queues nothing.
                let queued = taken.map { record, call in queue(record, .result(call), &batch) }
                let answers = try process.run([batch], from: thread)[0]
                for ((_, call), queueing) in zip(taken, queued) where answers[call] > 0 && answers[queueing] < 0 {
                    throw KernelError("queueing signal \(signal) again", Errno(Int32(-answers[queueing])))
                }
            }
        }
    }

    /// Leaves out the expiries that came after the timer had told its time: the destination makes them.
    func takeBack(in image: inout ProcessThreads, of process: SourceProcess) throws {
        let timers = image.timers
        func isToCome(_ record: [UInt8]) -> Bool {
            switch Self.code(of: record) {
            case Self.timerCode:
                let id = record.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 16, as: Int32.self) }
                guard let timer = timers.posix.first(where: { $0.id == id }) else { return false }
                return Self.isToCome(timer.remainingNs, every: timer.intervalNs, window)
            case Self.kernelCode:
                guard let which = [SIGALRM, SIGVTALRM, SIGPROF].firstIndex(of: Int32(record[0])),
                    which < timers.intervalTimers.count
                else { return false }
                // struct itimerval: interval, value; each in seconds and microseconds.
                let words = [UInt8](timers.intervalTimers[which]).withUnsafeBytes { bytes in
                    (0..<4).map { bytes.loadUnaligned(fromByteOffset: 8 * $0, as: Int64.self) }
                }
                return Self.isToCome(
                    words[2] * 1_000_000_000 + words[3] * 1000, every: words[0] * 1_000_000_000 + words[1] * 1000,
                    window)
            default: return false
            }
        }
        func without(_ pending: [Data], since known: [[UInt8]]) -> [Data] {
            var known = known
            return pending.filter { data in
                let record = [UInt8](data)
                if let index = known.firstIndex(of: record) {
                    known.remove(at: index)
                    return true
                }
                return !isToCome(record)
            }
        }
        image.pending = without(image.pending, since: before[nil] ?? [])
        image.editThreads { threads in
            for (index, thread) in process.threads.enumerated() where !threads[index].pending.isEmpty {
                threads[index].pending = without(threads[index].pending, since: before[thread.tracee.tid] ?? [])
            }
        }
    }

    /// One that told of time that was left expires when that is over, so if it has expired, then since it told. A
    /// periodic one may have done so before as well: then it had just begun a period when it told.
    private static func isToCome(_ remaining: Int64, every interval: Int64, _ window: Int64) -> Bool {
        remaining > 0 && (interval == 0 || interval - remaining > window)
    }
}

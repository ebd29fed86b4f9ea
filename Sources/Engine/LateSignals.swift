// Signals that are sent to a stopped process after its capture.
import Foundation
import Glibc
import LinuxKernel

/// Signals that wait for a process and that its image does not have, as siginfo_t records of 128 bytes.
public struct LateSignals: Sendable {
    /// Those for the process as a whole.
    public var ofProcess: [Data] = []
    /// Those for a thread, by its TID in the container.
    public var ofThreads: [Int32: [Data]] = [:]

    public init(ofProcess: [Data] = [], ofThreads: [Int32: [Data]] = [:]) {
        (self.ofProcess, self.ofThreads) = (ofProcess, ofThreads)
    }
    var isEmpty: Bool { ofProcess.isEmpty && ofThreads.isEmpty }

    /// Is the process stopped after these? Takes out SIGSTOP, which has its effect as soon as it comes; of SIGSTOP and
    /// SIGCONT only the later waits.
    mutating func takeStop(_ wasStopped: Bool) -> Bool {
        let all = ofProcess + ofThreads.values.flatMap { $0 }
        let (stops, continues) = (
            all.contains { Int32($0.first ?? 0) == SIGSTOP }, all.contains { Int32($0.first ?? 0) == SIGCONT }
        )
        ofProcess.removeAll { Int32($0.first ?? 0) == SIGSTOP }
        for tid in ofThreads.keys { ofThreads[tid]!.removeAll { Int32($0.first ?? 0) == SIGSTOP } }
        return stops || wasStopped && !continues
    }
}

extension SourceProcess {
    /// Reads the signals again that wait for the process and its threads, which must be stopped; the cgroup may be
    /// frozen.
    ///
    /// - Returns: what waits besides what was captured, by the process's PID in the container.
    public func lateSignals(since capture: Capture) throws -> [Int32: LateSignals] {
        let inner = try innerTID(of: pid), image = capture.threads.first { $0.pid == inner } ?? ProcessThreads()
        var late = LateSignals()
        late.ofProcess = Self.added(try Tracee(tid: pid).pendingSignals(ofProcess: true), to: image.pending)
        let known = Dictionary(image.threads.map { ($0.tid, $0.pending) }) { first, _ in first }
        for thread in threads {
            let tid = try innerTID(of: thread.tracee.tid)
            let added = Self.added(try thread.tracee.pendingSignals(ofProcess: false), to: known[tid] ?? [])
            if !added.isEmpty { late.ofThreads[tid] = added }
        }
        return late.isEmpty ? [:] : [inner: late]
    }

    /// What waits besides what was known. The destination's timers tell of their expiries by themselves, so the timers'
    /// signals are left out: SI_TIMER, and SI_KERNEL of interval timers.
    private static func added(_ records: [[UInt8]], to known: [Data]) -> [Data] {
        var known = known.map { [UInt8]($0) }
        return records.compactMap { record in
            if let index = known.firstIndex(of: record) {
                known.remove(at: index)
                return nil
            }
            let code = record.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8, as: Int32.self) }
            return code == -2 || code == 0x80 ? nil : Data(record)
        }
    }
}

extension StubProcess {
    /// Queues them after those that wait already. Only a thread itself may queue a signal that looks as if another process
    /// had sent it.
    func queue(_ late: LateSignals, of pid: Int32) throws {
        if !late.ofProcess.isEmpty {
            var batch = CallBatch()
            for info in late.ofProcess {
                let record = batch.bytes(info), signal = info.first ?? 0
                batch.call(
                    .rtSigqueueinfo, .int(pid), .int(signal), .address(record), doing: "queueing signal \(signal)"
                )
            }
            _ = try run(batch)
        }
        try queue(late.ofThreads.map { ($0.key, $0.value) }, of: pid)
    }

    /// Queues signals for threads, in all of them at the same time.
    func queue(_ signals: [(tid: Int32, records: [Bytes])], of pid: Int32) throws {
        let waiting = signals.compactMap { tid, records in
            threads[tid].map { ($0, ThreadRestore.queue(records, for: tid, of: pid)) }
        }
        for round in 0..<(waiting.map(\.1.count).max() ?? 0) {
            _ = try run(waiting.filter { $0.1.count > round }.map { ($0.0, $0.1[round]) })
        }
    }
}

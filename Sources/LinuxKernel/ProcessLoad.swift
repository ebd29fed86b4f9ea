// What a process has had of its processors and its memory so far.

/// Counters of a process since it began; the difference of two tells of the time between them.
public struct ProcessLoad: Sendable, Hashable, Codable {
    /// CLOCK_MONOTONIC nanoseconds at which it was read.
    public var at: Int64
    /// Nanoseconds that its threads have run, and for which they were ready to run and waited for a processor
    /// (/proc/PID/task/TID/schedstat; 0 where the kernel does not count). Of threads that live.
    public var ran: UInt64 = 0, waited: UInt64 = 0
    /// Page faults that needed no input (proc_pid_stat(5), field 10).
    public var faults: UInt64 = 0

    public init(of pid: Int32) throws(KernelError) {
        at = monotonicNow()
        for thread in try ProcessFiles.tasks(of: pid) {
            // One may just end.
            guard let text = try? SmallFile.text("/proc/\(pid)/task/\(thread)/schedstat") else { continue }
            let fields = text.split(separator: " ").compactMap { UInt64($0) }
            if fields.count == 3 { (ran, waited) = (ran + fields[0], waited + fields[1]) }
        }
        let fields = try ProcessFiles.statistics(of: pid)
        if fields.count > 7 { faults = UInt64(fields[7]) ?? 0 }
    }

    /// What a second between two readings had: milliseconds run and waited, faults. Nil: no time lies between them.
    public func perSecond(since earlier: ProcessLoad) -> (ran: Double, waited: Double, faults: Double)? {
        guard at > earlier.at else { return nil }
        let seconds = Double(at - earlier.at) / 1e9
        func difference(_ path: KeyPath<ProcessLoad, UInt64>) -> Double {
            // Threads that have ended take theirs along.
            Double(self[keyPath: path] &- min(earlier[keyPath: path], self[keyPath: path]))
        }
        return (
            difference(\.ran) / 1e6 / seconds, difference(\.waited) / 1e6 / seconds, difference(\.faults) / seconds
        )
    }
}

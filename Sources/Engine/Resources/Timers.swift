// Interval timers and POSIX timers, with the time that is left of them.
import LinuxKernel

struct Timers: ProcessResource {
    /// They may name a thread, and must not expire before the signals that wait are queued.
    static let comeWithThreads = true

    private var intervals: [CallBatch.DataReference] = []
    private var posix: [(timer: PosixTimer, time: CallBatch.DataReference)] = []

    mutating func ask(_ context: CaptureContext, _ batch: inout CallBatch) throws {
        for which in 0..<3 {
            let value = batch.space(32)
            intervals.append(value)
            batch.call(.getitimer, .int(which), .address(value), doing: "reading interval timer \(which)")
        }
        for var timer in try Self.list(context.pid) {
            if timer.notify == 4 {
                guard let thread = try? context.process.innerTID(of: timer.thread) else {
                    throw EngineError.obstacles([
                        context.obstacle("timer \(timer.id)", "its thread has ended, not carried yet")
                    ])
                }
                timer.thread = thread
            }
            let time = batch.space(32)
            batch.call(.timerGettime, .int(timer.id), .address(time), doing: "reading timer \(timer.id)")
            posix.append((timer, time))
        }
    }

    func collect(_ context: CaptureContext, _ answers: CallResults, into parts: inout ProcessParts) throws {
        parts.threads.timers.intervalTimers = intervals.map { Bytes(answers.bytes($0)) }
        parts.threads.timers.posix = posix.map { timer, time in
            var timer = timer
            timer.intervalNs = Int64(answers.word(time)) * 1_000_000_000 + Int64(answers.word(time, at: 1))
            timer.remainingNs = Int64(answers.word(time, at: 2)) * 1_000_000_000 + Int64(answers.word(time, at: 3))
            return timer
        }
    }

    static func restore(_ parts: ProcessParts, _ context: RestoreContext, _ batch: inout CallBatch) throws {
        let timers = parts.threads.timers
        if !timers.posix.isEmpty {
            // PR_TIMER_CREATE_RESTORE_IDS (Linux 6.15): timer_create takes the number that it is given.
            batch.call(.prctl, .value(77), .value(1), doing: "asking for timers of given numbers")
        }
        for timer in timers.posix {
            // struct sigevent: value, signal, notify, thread id.
            let event = batch.words([
                timer.value, UInt64(UInt32(bitPattern: timer.signal)) | UInt64(UInt32(bitPattern: timer.notify)) << 32,
                UInt64(UInt32(bitPattern: timer.thread)), 0, 0, 0, 0, 0,
            ])
            let number = batch.bytes(withUnsafeBytes(of: timer.id) { Array($0) })
            batch.call(
                .timerCreate, .int(timer.clock), .address(event), .address(number), doing: "making timer \(timer.id)")
            let time = batch.words([
                UInt64(timer.intervalNs / 1_000_000_000), UInt64(timer.intervalNs % 1_000_000_000),
                UInt64(timer.remainingNs / 1_000_000_000), UInt64(timer.remainingNs % 1_000_000_000),
            ])
            batch.call(
                .timerSettime, .int(timer.id), .value(0), .address(time), .value(0), doing: "setting timer \(timer.id)")
        }
        if !timers.posix.isEmpty {
            batch.call(.prctl, .value(77), .value(0), doing: "leaving numbers to the kernel again")
        }
        for (which, value) in timers.intervalTimers.enumerated() {
            guard value.contains(where: { $0 != 0 }) else { continue }
            let time = batch.bytes([UInt8](value))
            batch.call(.setitimer, .int(which), .address(time), .value(0), doing: "setting interval timer \(which)")
        }
    }

    /// /proc/PID/timers. Threads are named as this host's PID namespace has them.
    private static func list(_ pid: Int32) throws -> [PosixTimer] {
        var timers: [PosixTimer] = []
        for line in try SmallFile.text("/proc/\(pid)/timers").split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { continue }
            let value = parts[1].drop { $0 == " " }
            switch parts[0] {
            case "ID":
                timers.append(PosixTimer())
                timers[timers.count - 1].id = Int32(value) ?? 0
            case "signal":  // number/value as a pointer
                let pair = value.split(separator: "/")
                timers[timers.count - 1].signal = Int32(pair[0]) ?? 0
                timers[timers.count - 1].value = UInt64(pair[1].drop { $0 == "0" }.drop { $0 == "x" }, radix: 16) ?? 0
            case "notify":  // signal|none|thread/pid.PID or tid.TID
                let pair = value.split(separator: "/")
                let names: [Substring: Int32] = ["signal": 0, "none": 1, "thread": 2]
                timers[timers.count - 1].notify = names[pair[0]] ?? 0
                if pair.count > 1, pair[1].hasPrefix("tid.") {
                    timers[timers.count - 1].notify = 4
                    timers[timers.count - 1].thread = Int32(pair[1].dropFirst(4)) ?? 0
                }
            case "ClockID": timers[timers.count - 1].clock = Int32(value) ?? 0
            default: break
            }
        }
        return timers
    }

    static func obstacles(_ context: InspectContext) throws -> [Obstacle] {
        let timers = try list(context.pid)
        // A thread that ends takes a while to go from the list, and its timers stay.
        let threads = timers.contains { $0.notify == 4 } ? try ProcessFiles.tasks(of: context.pid) : []
        return timers.compactMap { timer in
            if timer.notify == 4, !threads.contains(timer.thread) {
                return context.obstacle("timer \(timer.id)", "its thread has ended, not carried yet")
            }
            if [0, 1, 7, 8, 9].contains(timer.clock) { return nil }
            return context.obstacle("timer \(timer.id)", "clock \(timer.clock), not carried yet")
        }
    }
}

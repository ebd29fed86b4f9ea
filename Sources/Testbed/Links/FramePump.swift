// What a lane's thread does: frames are read, wait for the rate, then for the delay, and are written.
//
// A link is a queue of limited length, a line that takes one frame after the other at a rate, and a distance. All times
// follow from the instants at which frames came, not from when this thread ran, so that being late once costs no rate.
// Nothing is allocated here, and nothing is locked unless the quality has changed.
import CLinux
import Glibc
import LinuxKernel

struct FramePump {
    /// Neighbouring segments of one frame that share their fate.
    private struct Run {
        var slot: UInt32
        var first: UInt16
        var count: UInt16
        var bytes: UInt32
        var isEarly: Bool
        /// When it came, then when it leaves.
        var time: Int64
    }

    /// A first-in, first-out queue of fixed capacity.
    private struct Ring {
        private let runs: UnsafeMutablePointer<Run>
        private let mask: Int
        /// Runs from `head` up to `tail`, counted since the beginning.
        private(set) var head = 0
        private(set) var tail = 0

        init(capacity: Int) throws {
            runs = try FramePool.map(capacity * MemoryLayout<Run>.stride).assumingMemoryBound(to: Run.self)
            mask = capacity - 1
        }
        var isFull: Bool { tail - head > mask }
        subscript(index: Int) -> Run {
            get { runs[index & mask] }
            nonmutating set { runs[index & mask] = newValue }
        }
        mutating func append(_ run: Run) {
            self[tail] = run
            tail += 1
        }
        mutating func removeFirst() { head += 1 }
        mutating func removeLast(_ count: Int) { tail -= count }
    }

    private let lane: LinkLane
    private let source: TAP
    private let destination: TAP
    private var pool: FramePool
    /// All runs in the order in which they came: from `line.head` on those on their way, from `waiting` on those that
    /// wait for the rate.
    private var line: Ring
    private var waiting = 0
    private var waitingBytes = 0
    /// Runs that overtake the line.
    private var express: Ring
    /// When the last run's last bit has been put on the line.
    private var lineFree: Int64 = 0

    private var quality = Numbers(LinkQuality())
    private var seenChanges = -1
    private var random = FastRandom()
    /// Drawn already, for the first segment of the next run.
    private var nextFate: Fate?
    private let scratch = UnsafeMutableRawPointer.allocate(
        byteCount: TAP.header + Superframe.mostHeaders, alignment: 16)

    /// A quality in the units of this loop.
    private struct Numbers {
        /// Nanoseconds a byte takes; 0: no time.
        let byteTime: Double
        let delay: Int64
        let jitter: Int64
        /// Compared with 64 random bits.
        let loss: UInt64
        let reorder: UInt64
        let queueLimit: Int
        /// Bytes that are put on the line as one run at most: what takes 250 µs, so that a large frame does not arrive
        /// as a lump, long after the first of its segments would have.
        let largestRun: Int

        init(_ quality: LinkQuality) {
            byteTime = quality.rate.bitsPerSecond.map { 8e9 / Double($0) } ?? 0
            (delay, jitter) = (Int64(quality.delay * 1e6), Int64(quality.jitter * 1e6))
            (loss, reorder) = (Self.threshold(quality.loss), Self.threshold(quality.reorder))
            queueLimit = quality.queueLimit.map { Int($0) } ?? .max
            largestRun = byteTime > 0 ? Int(250_000 / byteTime) : .max
        }
        private static func threshold(_ percent: Double) -> UInt64 {
            percent >= 100 ? .max : UInt64(percent / 100 * 0x1p64)
        }
    }

    init(_ lane: LinkLane, from source: TAP, to destination: TAP) throws {
        (self.lane, self.source, self.destination) = (lane, source, destination)
        pool = try FramePool()
        line = try Ring(capacity: 1 << 18)
        express = try Ring(capacity: 1 << 18)
    }

    /// Moves frames until an interface is gone; says so then.
    mutating func run() -> String {
        while true {
            let changes = lane.changes.load(ordering: .acquiring)
            if changes != seenChanges {
                (seenChanges, quality) = (changes, Numbers(lane.current))
            }
            let more = admit()
            let now = monotonicNow()
            serialise(now)
            deliver(now)
            if !more, let end = wait() { return end }
        }
    }

    // MARK: - In

    /// Reads what is there, a few frames at a time, so that those that are due do not wait for it.
    ///
    /// - Returns: whether more may be there.
    private mutating func admit() -> Bool {
        for _ in 0..<8 {
            guard let slot = pool.take() else {
                // No room for any frame: it is taken off the interface and dropped.
                let length = Glibc.read(source.descriptor.number, scratch, TAP.header + Superframe.mostHeaders)
                if length <= 0 { return false }
                lane.overflowed.add(1, ordering: .relaxed)
                continue
            }
            let length = Glibc.read(source.descriptor.number, pool.address(slot), FramePool.largest)
            guard length > TAP.header + 14 else {
                pool.giveBack(slot)
                return false
            }
            admit(slot, length, at: monotonicNow())
        }
        return true
    }

    /// Cuts a frame into runs and queues them.
    private mutating func admit(_ slot: Int, _ length: Int, at time: Int64) {
        let frame = Superframe(pool.address(slot), length)
        let longest = max(1, quality.largestRun / (frame.segmentSize + frame.headers + 1))
        let begin = line.tail
        let waitedBytes = waitingBytes
        var (first, overflowed) = (0, 0)
        while first < frame.segments {
            let (fate, count) = draw(most: min(longest, frame.segments - first))
            let bytes = frame.wireBytes(first, count)
            if fate == .lost {
                lane.lost.add(UInt64(count), ordering: .relaxed)
            } else if line.isFull || waitingBytes > 0 && waitingBytes + bytes > quality.queueLimit {
                overflowed += count
            } else {
                line.append(
                    Run(
                        slot: 0, first: UInt16(first), count: UInt16(count), bytes: UInt32(bytes),
                        isEarly: fate == .early, time: time))
                waitingBytes += bytes
            }
            first += count
        }
        if line.tail == begin {
            pool.giveBack(slot)
        } else if let place = pool.keep(slot, length: length, users: line.tail - begin) {
            for index in begin..<line.tail { line[index].slot = UInt32(place) }
        } else {
            for index in begin..<line.tail { overflowed += Int(line[index].count) }
            line.removeLast(line.tail - begin)
            waitingBytes = waitedBytes
        }
        if overflowed > 0 { lane.overflowed.add(UInt64(overflowed), ordering: .relaxed) }
    }

    private enum Fate { case usual, lost, early }

    /// Decides about the next segment, and how many of those after it share its fate.
    private mutating func draw(most: Int) -> (Fate, count: Int) {
        if quality.loss | quality.reorder == 0 {
            nextFate = nil
            return (.usual, most)
        }
        let fate = nextFate ?? drawOne()
        nextFate = nil
        var count = 1
        while count < most {
            let other = drawOne()
            if other != fate {
                nextFate = other
                break
            }
            count += 1
        }
        return (fate, count)
    }

    private mutating func drawOne() -> Fate {
        if quality.loss > 0 && random.next() <= quality.loss { return .lost }
        if quality.reorder > 0 && random.next() <= quality.reorder { return .early }
        return .usual
    }

    // MARK: - On the line

    /// Puts on the line what it is free for, and says when that leaves at the other end.
    private mutating func serialise(_ now: Int64) {
        while waiting < line.tail && (lineFree <= now || quality.byteTime == 0) {
            var run = line[waiting]
            lineFree = max(lineFree, run.time) + Int64(Double(run.bytes) * quality.byteTime)
            waitingBytes -= Int(run.bytes)
            if run.isEarly && quality.delay > 0 && !express.isFull {
                run.time = lineFree
                express.append(run)
                // Its place in the line is empty.
                run.count = 0
                lane.early.add(1, ordering: .relaxed)
            }
            let deviation = quality.jitter == 0 ? 0 : Int64.random(in: -quality.jitter...quality.jitter, using: &random)
            // Where that is earlier than what those ahead of it have to wait, it leaves after them all the same.
            run.time = lineFree + quality.delay + deviation
            line[waiting] = run
            waiting += 1
        }
    }

    // MARK: - Out

    /// Writes what is due, at most a few runs of each kind, so that reading does not wait for long.
    private mutating func deliver(_ now: Int64) {
        for _ in 0..<16 {
            guard express.head < express.tail, express[express.head].time <= now else { break }
            write(express[express.head])
            express.removeFirst()
        }
        for _ in 0..<16 {
            guard line.head < waiting, line[line.head].count == 0 || line[line.head].time <= now else { break }
            if line[line.head].count > 0 { write(line[line.head]) }
            line.removeFirst()
        }
    }

    private mutating func write(_ run: Run) {
        let (slot, count) = (Int(run.slot), Int(run.count))
        let result = pool.frame(slot).write(
            Int(run.first), count, to: destination.descriptor.number, scratch: scratch)
        pool.release(slot)
        if result < 0 {
            lane.refused.add(UInt64(count), ordering: .relaxed)
        } else {
            lane.frames.add(UInt64(count), ordering: .relaxed)
            lane.bytes.add(UInt64(run.bytes), ordering: .relaxed)
        }
    }

    /// Sleeps until a frame comes, one is due, or the quality changes.
    ///
    /// - Returns: why nothing will ever come again.
    private mutating func wait() -> String? {
        var next = Int64.max
        if express.head < express.tail { next = express[express.head].time }
        if line.head < waiting { next = min(next, line[line.head].time) }
        if waiting < line.tail { next = min(next, lineFree) }
        let timeout = next == .max ? 3_600_000_000_000 : next - monotonicNow()
        guard timeout > 0 else { return nil }
        return withUnsafeTemporaryAllocation(of: pollfd.self, capacity: 2) { entries in
            entries[0] = pollfd(fd: source.descriptor.number, events: Int16(POLLIN), revents: 0)
            entries[1] = pollfd(fd: lane.bell.number, events: Int16(POLLIN), revents: 0)
            guard clx_poll(entries.baseAddress, 2, timeout) > 0 else { return nil }
            if entries[1].revents != 0 {
                var count: UInt64 = 0
                _ = Glibc.read(lane.bell.number, &count, 8)
            }
            if Int32(entries[0].revents) & (POLLERR | POLLHUP | POLLNVAL) != 0 {
                return "interface \(source.end.interface) of \(source.end.network) is gone"
            }
            return nil
        }
    }
}

/// SplitMix64, which needs no lock and no system call.
private struct FastRandom: RandomNumberGenerator {
    private var state = UInt64.random(in: 0 ... .max)
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        return ValueGenerator.mix(state)
    }
}

// The scan of the freeze: the one step that grows with the memory of a process, so whoever is free takes a piece of it.
import Glibc
import LinuxKernel
import Synchronization

/// Finds the pages of a stopped process that were written since they were protected last.
final class StoppedScan: Sendable {
    // Each used by one thread alone: that of `writtenPages`, and that of `help`.
    nonisolated(unsafe) private let own: Pagemap
    nonisolated(unsafe) private let helpers: Pagemap
    private let current = Mutex<Work?>(nil)
    private static let piece: UInt64 = 32 << 20

    init(pid: Int32) throws(KernelError) { (own, helpers) = (try Pagemap(pid: pid), try Pagemap(pid: pid)) }

    func writtenPages(in ranges: AddressRanges) throws(KernelError) -> [AddressRange] {
        let work = Work(Self.pieces(of: ranges))
        current.withLock { $0 = work }
        defer { current.withLock { $0 = nil } }
        work.run(own)
        return try work.result()
    }

    /// Long ranges are cut, short ones put together.
    private static func pieces(of ranges: AddressRanges) -> [[AddressRange]] {
        var pieces: [[AddressRange]] = [], room: UInt64 = 0
        for range in ranges.ranges {
            var start = range.lowerBound
            while start < range.upperBound {
                if room == 0 || pieces[pieces.count - 1].count == mostRanges {
                    pieces.append([])
                    room = piece
                }
                let end = min(start + room, range.upperBound)
                pieces[pieces.count - 1].append(start..<end)
                room -= end - start
                start = end
            }
        }
        return pieces
    }
    private static let mostRanges = 64

    /// Takes pieces of a scan that another thread has begun, until there are none.
    func help() { current.withLock { $0 }?.run(helpers) }

    /// Pieces to scan, taken by whoever is free.
    private final class Work: Sendable {
        private let pieces: [[AddressRange]]
        private let next = Atomic(0)
        private let found = Mutex<(written: [AddressRange], pieces: Int, error: KernelError?)>(([], 0, nil))

        init(_ pieces: [[AddressRange]]) { self.pieces = pieces }

        func run(_ pagemap: Pagemap) {
            var query = Pagemap.Query()
            (query.all, query.returned) = (.written, .written)
            while true {
                let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard index < pieces.count else { return }
                var written: [AddressRange] = [], failure: KernelError?
                do throws(KernelError) {
                    for range in pieces[index] {
                        try pagemap.scan(range, query) { range, _ in written.append(range) }
                    }
                } catch { failure = error }
                found.withLock {
                    $0.written += written
                    $0.pieces += 1
                    $0.error = $0.error ?? failure
                }
            }
        }

        /// Waits for the piece that a helper may still be at: some 100 µs.
        func result() throws(KernelError) -> [AddressRange] {
            while true {
                let (written, done, error) = found.withLock { $0 }
                if done < pieces.count {
                    sched_yield()
                    continue
                }
                if let error { throw error }
                return written
            }
        }
    }
}

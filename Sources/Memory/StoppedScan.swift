// The scan of the freeze: the one step that grows with the memory of a process, so it is divided over two processors.
import LinuxKernel
import Synchronization

/// Finds the pages of a stopped process that were written since they were protected last.
final class StoppedScan {
    private let own, helpers: Pagemap
    /// From here on a thread that helps saves more than it costs to start one.
    private static let worthDividing: UInt64 = 256 << 20
    private static let piece: UInt64 = 64 << 20

    init(pid: Int32) throws(KernelError) { (own, helpers) = (try Pagemap(pid: pid), try Pagemap(pid: pid)) }

    func writtenPages(in ranges: AddressRanges) throws(KernelError) -> [AddressRange] {
        let pieces = ranges.ranges.flatMap { range in
            stride(from: range.lowerBound, to: range.upperBound, by: Int(Self.piece)).map {
                $0..<min($0 + Self.piece, range.upperBound)
            }
        }
        let work = Work(pieces)
        guard ranges.bytes >= Self.worthDividing else {
            work.run(own)
            return try work.result()
        }
        // SAFETY: used by that thread alone until it has ended.
        nonisolated(unsafe) let helpers = helpers
        // Without room for another thread this one does it all.
        let helper = try? OwnThread("apus-scan") { work.run(helpers) }
        work.run(own)
        helper?.join()
        return try work.result()
    }

    /// Pieces to scan, taken by whoever is free.
    private final class Work: Sendable {
        private let pieces: [AddressRange]
        private let next = Atomic(0)
        private let found = Mutex<(written: [AddressRange], error: KernelError?)>(([], nil))

        init(_ pieces: [AddressRange]) { self.pieces = pieces }

        func run(_ pagemap: Pagemap) {
            var query = Pagemap.Query()
            (query.all, query.returned) = (.written, .written)
            var written: [AddressRange] = []
            while true {
                let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard index < pieces.count else { break }
                do throws(KernelError) {
                    try pagemap.scan(pieces[index], query) { range, _ in written.append(range) }
                } catch {
                    return found.withLock { $0.error = error }
                }
            }
            found.withLock { $0.written += written }
        }

        func result() throws(KernelError) -> [AddressRange] {
            let (written, error) = found.withLock { $0 }
            if let error { throw error }
            return written
        }
    }
}

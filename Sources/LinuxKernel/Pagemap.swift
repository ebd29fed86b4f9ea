// PAGEMAP_SCAN (Linux 6.7): which pages of a process are in which state, and write-protecting them in the same step.
import CLinux
import Glibc

/// PAGE_IS_*.
public struct PageCategories: OptionSet, Sendable, Hashable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public static let writeProtectAllowed = PageCategories(rawValue: 1 << 0)
    public static let written = PageCategories(rawValue: 1 << 1)
    public static let file = PageCategories(rawValue: 1 << 2)
    public static let present = PageCategories(rawValue: 1 << 3)
    public static let swapped = PageCategories(rawValue: 1 << 4)
    public static let zeroPage = PageCategories(rawValue: 1 << 5)
    public static let huge = PageCategories(rawValue: 1 << 6)
}

/// Scans of one process's page table. Not for two threads at once.
public final class Pagemap {
    public let pid: Int32
    private let file: FileDescriptor
    private let regions: UnsafeMutableBufferPointer<clx_page_region>

    public init(pid: Int32) throws(KernelError) {
        self.pid = pid
        file = try FileDescriptor(opening: "/proc/\(pid)/pagemap", O_RDONLY)
        regions = .allocate(capacity: 16384)
    }
    deinit { regions.deallocate() }

    /// The entries of /proc/PID/pagemap for the pages of a range (Documentation/admin-guide/mm/pagemap.rst).
    public func entries(of range: AddressRange) throws(KernelError) -> [UInt64] {
        var words = [UInt64](repeating: 0, count: Int(UInt64(range.count) / 4096))
        var done = 0
        while done < words.count * 8 {
            let n = words.withUnsafeMutableBytes {
                clx_pread(
                    file.number, $0.baseAddress! + done, $0.count - done, range.lowerBound / 4096 * 8 + UInt64(done))
            }
            if try check(n, "reading page table entries of \(range)") == 0 { break }
            done += n
        }
        return words
    }

    /// What a scan looks for and does.
    public struct Query: Sendable {
        /// All of these must be set (after `inverted` flips some).
        public var all: PageCategories = []
        /// At least one of these must be set.
        public var any: PageCategories = []
        public var inverted: PageCategories = []
        public var returned: PageCategories = []
        /// PM_SCAN_WP_MATCHING: every matching page is write-protected again in the same atomic step.
        public var protect = false
        public init() {}
    }

    /// Calls `found` with every run of matching pages in ascending order.
    ///
    /// With `protect` it throws EPERM at a mapping that is not tracked; what it protected until then is not told.
    public func scan(_ range: AddressRange, _ query: Query, found: (AddressRange, PageCategories) -> Void)
        throws(KernelError)
    {
        var start = range.lowerBound
        while start < range.upperBound {
            var argument = clx_pm_scan_arg()
            argument.size = UInt64(MemoryLayout<clx_pm_scan_arg>.size)
            argument.flags = query.protect ? UInt64(CLX_PM_SCAN_WP_MATCHING | CLX_PM_SCAN_CHECK_WPASYNC) : 0
            argument.start = start
            argument.end = range.upperBound
            argument.vec = UInt64(UInt(bitPattern: regions.baseAddress))
            argument.vec_len = UInt64(regions.count)
            argument.category_inverted = query.inverted.rawValue
            argument.category_mask = query.all.rawValue
            argument.category_anyof_mask = query.any.rawValue
            argument.return_mask = query.returned.rawValue
            let count = try check(
                clx_ioctl(file.number, clx_PAGEMAP_SCAN, &argument),
                "scanning pages 0x\(String(start, radix: 16))-0x\(String(range.upperBound, radix: 16))")
            for region in regions[..<Int(count)] {
                found(region.start..<region.end, PageCategories(rawValue: region.categories))
            }
            // walk_end is a place to go on from only if the vector came back full.
            guard count == regions.count else { return }
            start = max(argument.walk_end, regions[Int(count) - 1].end)
        }
    }
}

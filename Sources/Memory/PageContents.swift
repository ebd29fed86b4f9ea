// Which pages of an address space have content that has to be carried, and where there are page tables at all.
import LinuxKernel

/// What one page table of the lowest level maps: the smallest piece of an address space for which the kernel has to
/// make a table before one of its pages can be there, or be protected.
let pageTableSpan: UInt64 = 2 << 20

extension AddressRanges {
    /// The page tables that these ranges touch.
    var touchedTables: AddressRanges {
        AddressRanges(
            ranges.map {
                $0.lowerBound & ~(pageTableSpan - 1)..<($0.upperBound + pageTableSpan - 1) & ~(pageTableSpan - 1)
            })
    }
    /// The page tables that lie in these ranges as a whole.
    var wholeTables: AddressRanges {
        AddressRanges(
            ranges.compactMap {
                let low = ($0.lowerBound + pageTableSpan - 1) & ~(pageTableSpan - 1)
                let high = $0.upperBound & ~(pageTableSpan - 1)
                return low < high ? low..<high : nil
            })
    }
}

extension Pagemap {
    /// All pages with content of their own: neither absent, nor the zero page, nor still their file's.
    public func contents(of areas: [TrackedArea]) throws(KernelError) -> AddressRanges {
        try contents(of: AddressRanges(areas.map(\.range)), in: areas)
    }

    /// Pages with content of their own in the given ranges.
    ///
    /// - Parameter vanished: called with areas of shared memory that the running process has changed since its maps
    ///   were read; of those only what the page table shows is told.
    func contents(
        of ranges: AddressRanges, in areas: [TrackedArea], vanished: (AddressRange) -> Void = { _ in }
    ) throws(KernelError) -> AddressRanges {
        var pages: [AddressRange] = [], swapped: [AddressRange] = []
        var query = Pagemap.Query()
        query.any = [.present, .swapped]
        query.returned = [.present, .swapped, .file, .zeroPage]
        let shared = areas.filter { $0.kind == .sharedAnonymous }
        let own = ranges.intersection(AddressRanges(areas.map(\.range)))
        // One scan goes over any number of areas. Memory that is not a file's has no pages of one.
        for range in own.subtracting(AddressRanges(shared.map(\.range))).ranges {
            try scan(range, query) { found, categories in
                guard categories.isDisjoint(with: [.file, .zeroPage]) else { return }
                // A protection marker looks like a swapped page: a file's page that was dropped leaves one.
                if categories.contains(.present) { pages.append(found) } else { swapped.append(found) }
            }
        }
        for range in swapped { pages += try reallySwapped(in: range) }
        for area in shared {
            for range in own.parts(in: area.range) { pages += try sharedContents(of: range, in: area, vanished) }
        }
        return AddressRanges(pages)
    }

    /// Pages of shared memory: those that this page table shows, and those that only their object has.
    private func sharedContents(of range: AddressRange, in area: TrackedArea, _ vanished: (AddressRange) -> Void)
        throws(KernelError) -> [AddressRange]
    {
        let present = try presentPages(in: range)
        let others = AddressRanges([range]).subtracting(present)
        if others.isEmpty { return present.ranges }
        guard let object = try SharedObject(of: pid, area) else {
            vanished(area.range)
            return present.ranges
        }
        return try present.ranges + object.data(in: others)
    }

    private func presentPages(in range: AddressRange) throws(KernelError) -> AddressRanges {
        var query = Pagemap.Query(), found = AddressRanges()
        (query.all, query.returned) = ([.present], [.present])
        try scan(range, query) { range, _ in found.append(range) }
        return found
    }

    /// What of some ranges lies in page tables with an entry of theirs. Shared memory has entries wherever its object
    /// has pages, for a page that was swapped out leaves none.
    func populated(in ranges: AddressRanges, of areas: [TrackedArea], vanished: (AddressRange) -> Void = { _ in })
        throws(KernelError) -> AddressRanges
    {
        var query = Pagemap.Query(), found: [AddressRange] = []
        (query.any, query.returned) = ([.present, .swapped], [.present])
        for range in ranges.ranges { try scan(range, query) { range, _ in found.append(range) } }
        let withTables = AddressRanges(found).touchedTables
        let rest = ranges.subtracting(withTables)
        var shared: [AddressRange] = []
        for area in areas where area.kind == .sharedAnonymous {
            for range in rest.parts(in: area.range) { shared += try sharedContents(of: range, in: area, vanished) }
        }
        return withTables.union(AddressRanges(shared).touchedTables).intersection(ranges)
    }

    /// Guard regions (MADV_GUARD_INSTALL, Linux 6.13), by the markers that they leave in page tables: an own category
    /// tells of them since 6.16 only.
    public func guardRegions(in ranges: AddressRanges) throws(KernelError) -> AddressRanges {
        var query = Pagemap.Query(), markers: [AddressRange] = [], found = AddressRanges()
        (query.any, query.returned) = ([.swapped], [.swapped])
        for range in ranges.ranges { try scan(range, query) { range, _ in markers.append(range) } }
        for range in markers {
            for (index, word) in try entries(of: range).enumerated() {
                // A marker's kinds stand where a swapped page has its place in the swap, from bit 5 on; the third is a
                // guard.
                guard word & 1 << 62 != 0, word & 31 == 31, word >> 5 & 4 != 0 else { continue }
                let page = range.lowerBound + UInt64(index) * pageSize
                found.append(page..<page + pageSize)
            }
        }
        return found
    }

    /// Pages of a range that are swapped out or being moved, rather than absent under a marker.
    private func reallySwapped(in range: AddressRange) throws(KernelError) -> [AddressRange] {
        var found: [AddressRange] = []
        for (index, word) in try entries(of: range).enumerated() {
            // Bits 0 to 4 of a swapped page's entry are its swap type, of which the kernel keeps the highest for
            // markers.
            guard word & 1 << 62 != 0, word & 31 != 31 else { continue }
            let page = range.lowerBound + UInt64(index) * pageSize
            found.append(page..<page + pageSize)
        }
        return found
    }
}

// Which pages of an address space have content that has to be carried.
import LinuxKernel

extension Pagemap {
    /// All pages with content of their own: neither absent, nor the zero page, nor still their file's.
    public func contents(of areas: [TrackedArea]) throws(KernelError) -> AddressRanges {
        try contents(of: AddressRanges(areas.map(\.range)), in: areas)
    }

    /// Pages with content of their own in the given ranges.
    func contents(of ranges: AddressRanges, in areas: [TrackedArea]) throws(KernelError) -> AddressRanges {
        var pages: [AddressRange] = []
        for area in areas {
            for range in AddressRanges([area.range]).intersection(ranges).ranges {
                switch area.kind {
                case .sharedAnonymous:
                    pages.append(range)
                case .anonymous, .privateFile:
                    var query = Pagemap.Query()
                    query.any = [.present, .swapped]
                    query.returned = [.present, .swapped, .file, .zeroPage]
                    try scan(range, query) { found, categories in
                        let own = categories.isDisjoint(with: area.kind == .anonymous ? .zeroPage : [.file, .zeroPage])
                        if own { pages.append(found) }
                    }
                }
            }
        }
        return AddressRanges(pages)
    }
}

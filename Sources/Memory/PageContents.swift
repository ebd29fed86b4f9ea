// Which pages of an address space have content that has to be carried.
import LinuxKernel

extension Pagemap {
    /// All pages with content of their own: neither absent, nor the zero page, nor still their file's.
    public func contents(of areas: [TrackedArea]) throws(KernelError) -> AddressRanges {
        try contents(of: AddressRanges(areas.map(\.range)), in: areas)
    }

    /// Pages with content of their own in the given ranges.
    func contents(of ranges: AddressRanges, in areas: [TrackedArea]) throws(KernelError) -> AddressRanges {
        var pages: [AddressRange] = [], swapped: [AddressRange] = []
        for area in areas {
            for range in ranges.parts(in: area.range) {
                switch area.kind {
                case .sharedAnonymous:
                    pages.append(range)
                case .anonymous, .privateFile:
                    var query = Pagemap.Query()
                    query.any = [.present, .swapped]
                    query.returned = [.present, .swapped, .file, .zeroPage]
                    try scan(range, query) { found, categories in
                        let own = categories.isDisjoint(with: area.kind == .anonymous ? .zeroPage : [.file, .zeroPage])
                        // A protection marker looks like a swapped page: a file's page that was dropped leaves one.
                        if own && categories.contains(.present) {
                            pages.append(found)
                        } else if own {
                            swapped.append(found)
                        }
                    }
                }
            }
        }
        for range in swapped { pages += try reallySwapped(in: range) }
        return AddressRanges(pages)
    }

    /// Pages of a range that are swapped out or being moved, rather than absent under a marker.
    private func reallySwapped(in range: AddressRange) throws(KernelError) -> [AddressRange] {
        var found: [AddressRange] = []
        for (index, word) in try entries(of: range).enumerated() {
            // Bits 0 to 4 of a swapped page's entry are its swap type, of which the kernel keeps the highest for markers.
            guard word & 1 << 62 != 0, word & 31 != 31 else { continue }
            let page = range.lowerBound + UInt64(index) * pageSize
            found.append(page..<page + pageSize)
        }
        return found
    }
}

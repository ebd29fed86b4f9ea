// One mapping at the source is one at the destination: mremap(2) refuses a range that lies in several.
import LinuxKernel
import Memory

extension StubProcess {
    /// Makes one mapping of each of these private areas, which were put together from pieces.
    ///
    /// The kernel joins neighbours only if they have no pages of different origin (anon_vma) and, of a file, the same
    /// opening. Where it did not, all pieces but the largest are mapped again around that one, which joins them, and
    /// their content is copied back. That is rare.
    func join(_ areas: [MemoryArea]) throws {
        if areas.isEmpty { return }
        let maps = try currentMaps().map(\.range)
        for area in areas {
            let pieces = maps.filter { $0.overlaps(area.range) }
            if pieces.count > 1 { try join(pieces.map { $0.clamped(to: area.range) }, of: area) }
        }
    }

    private func join(_ pieces: [AddressRange], of area: MemoryArea) throws {
        // A file that is opened again is another one to the kernel.
        let isFile = area.kind == .privateFile
        let kept = isFile ? nil : pieces.max { $0.count < $1.count }
        let others = pieces.filter { $0 != kept }
        let gone = AddressRanges([area.range]).subtracting(AddressRanges(kept.map { [$0] } ?? []))
        let content = try Pagemap(pid: pid).contents(
            of: others.map { TrackedArea($0, isFile ? .privateFile : .anonymous) })

        // Where the pieces wait: as far from each other as they are now.
        let size = area.end - area.start
        let refuge = hole(of: size, avoiding: layout.map(\.range) + [self.area.range])
        var batch = CallBatch()
        for piece in others { batch.move(piece, to: piece.lowerBound - area.start + refuge, "a piece of a mapping") }
        _ = try run(batch)
        _ = try run(AddressSpacePlan.batch(for: mapping(gone.ranges, around: kept, of: area)))
        for range in content.ranges { try copy(range, from: range.lowerBound - area.start + refuge) }
        batch = CallBatch()
        batch.call(.munmap, .int(refuge), .int(size), doing: "unmapping the pieces of a mapping")
        _ = try run(batch)
    }

    /// The steps that map parts of an area around the piece of it that stays.
    ///
    /// Neighbours are joined only if both are accounted for (VM_ACCOUNT), which memory is from the time on that it can
    /// be written: so all of it can for a moment.
    private func mapping(_ ranges: [AddressRange], around kept: AddressRange?, of area: MemoryArea) -> [LayoutStep] {
        guard let kept else { return ranges.flatMap { AddressSpacePlan.mapping(area, $0) } }
        var writable = area
        writable.protection |= 3
        var steps = [.protect(kept, writable.protection)] + ranges.flatMap { AddressSpacePlan.mapping(writable, $0) }
        // The kernel prefers to join what is mapped to the mapping before it: one like it differs for a moment.
        if let before = layout.last(where: { $0.end == area.start }), before.isPrivateAnonymous,
            before.protection == writable.protection
        {
            let lastPage = before.end - 4096..<before.end
            steps = [.protect(lastPage, 1)] + steps + [.protect(lastPage, before.protection)]
        }
        return steps + [.protect(area.range, area.protection)]
    }

    /// Copies pages within the process; they are given back on the way, so that it never needs much more memory.
    private func copy(_ range: AddressRange, from origin: UInt64) throws {
        let step: UInt64 = 4 << 20
        for start in stride(from: range.lowerBound, to: range.upperBound, by: Int(step)) {
            let part = start..<min(start + step, range.upperBound)
            let source = start - range.lowerBound + origin
            try memory.poke(memory.peek(part.count, at: source), at: start)
            var batch = CallBatch()
            // Memory that is locked stays until all of it goes.
            batch.call(
                .madvise, .int(source), .int(part.count), .value(4), must: false, doing: "dropping what was copied")
            _ = try run(batch)
        }
    }
}

// From one layout to another: which mappings have to go, come or change in the destination's process.
import Glibc
import LinuxKernel
import Memory

/// A step of changing a layout.
enum LayoutStep: Equatable {
    case unmap(AddressRange)
    /// The area's own mapping over a part of it.
    case map(MemoryArea, AddressRange)
    case protect(AddressRange, UInt32)
    /// The area's advice to a part of it that has another.
    case advise(MemoryArea, AddressRange, after: UInt32)
    case lock(AddressRange)
}

public enum AddressSpacePlan {
    /// Memory that the destination, going from one layout to the other, maps anew: whatever it held there is gone.
    public static func mappedAnew(from old: [MemoryArea], to new: [MemoryArea]) -> AddressRanges {
        AddressRanges(
            steps(from: old, to: new).compactMap { step in
                if case .map(_, let range) = step { range } else { nil }
            })
    }

    /// The steps that turn `old` into `new`, both sorted; special mappings are left alone.
    ///
    /// Memory that both have in common stays with its content.
    static func steps(from old: [MemoryArea], to new: [MemoryArea]) -> [LayoutStep] {
        let old = old.filter { !$0.isSpecial }, new = new.filter { !$0.isSpecial }
        var cuts = Set<UInt64>()
        for area in old + new {
            cuts.insert(area.start)
            cuts.insert(area.end)
        }
        var unmaps = AddressRanges(), maps: [(Int, AddressRange)] = [], changes: [LayoutStep] = []
        let points = cuts.sorted()
        var i = 0, j = 0
        for (low, high) in zip(points, points.dropFirst()) {
            while i < old.count, old[i].end <= low { i += 1 }
            while j < new.count, new[j].end <= low { j += 1 }
            let was = i < old.count && old[i].start <= low ? old[i] : nil
            let becomes = j < new.count && new[j].start <= low ? new[j] : nil
            let stays = was != nil && becomes != nil && becomes!.continues(was!)
            if was != nil, !stays { unmaps.append(low..<high) }
            guard let becomes else { continue }
            if !stays {
                if let last = maps.last, last.0 == j, last.1.upperBound == low {
                    maps[maps.count - 1].1 = last.1.lowerBound..<high
                } else {
                    maps.append((j, low..<high))
                }
            } else if let was {
                if was.protection != becomes.protection { changes.append(.protect(low..<high, becomes.protection)) }
                if was.advice != becomes.advice { changes.append(.advise(becomes, low..<high, after: was.advice)) }
                if !was.locked, becomes.locked { changes.append(.lock(low..<high)) }
            }
        }
        var steps = unmaps.ranges.map { LayoutStep.unmap($0) }
        for (index, range) in merged(maps, new) { steps.append(.map(new[index], range)) }
        for (index, range) in maps {
            let area = new[index]
            if area.kind == .sharedAnonymous { steps.append(.protect(range, area.protection)) }
            if area.advice != 0 { steps.append(.advise(area, range, after: 0)) }
            if area.locked { steps.append(.lock(range)) }
        }
        return steps + changes
    }

    /// Neighbouring pieces of one shared memory object are mapped as one: each mapping would make its own object.
    private static func merged(_ maps: [(Int, AddressRange)], _ areas: [MemoryArea]) -> [(Int, AddressRange)] {
        var result: [(Int, AddressRange)] = []
        for (index, range) in maps {
            if let last = result.last, areas[index].kind == .sharedAnonymous, areas[last.0].kind == .sharedAnonymous,
                areas[last.0].object == areas[index].object, last.1.upperBound == range.lowerBound,
                areas[last.0].start &- areas[last.0].offset == areas[index].start &- areas[index].offset
            {
                result[result.count - 1].1 = last.1.lowerBound..<range.upperBound
            } else {
                result.append((index, range))
            }
        }
        return result
    }

    /// The calls for some steps.
    static func batch(for steps: some Collection<LayoutStep>) -> CallBatch {
        var batch = CallBatch()
        for step in steps {
            switch step {
            case .unmap(let range):
                batch.call(.munmap, .int(range.lowerBound), .int(range.count), doing: "unmapping \(range.hex)")
            case .map(let area, let range): add(area, range, &batch)
            case .protect(let range, let protection):
                batch.call(
                    .mprotect, .int(range.lowerBound), .int(range.count), .int(protection),
                    doing: "protecting \(range.hex)")
            case .advise(let area, let range, let other):
                for advice in AreaAdvice(rawValue: area.advice).madvise(after: AreaAdvice(rawValue: other)) {
                    batch.call(
                        .madvise, .int(range.lowerBound), .int(range.count), .int(advice), must: false,
                        doing: "advising \(range.hex)")
                }
            case .lock(let range):
                batch.call(.mlock, .int(range.lowerBound), .int(range.count), doing: "locking \(range.hex)")
            }
        }
        return batch
    }

    private static func add(_ area: MemoryArea, _ range: AddressRange, _ batch: inout CallBatch) {
        let fixed: UInt64 = 0x10_0000  // MAP_FIXED_NOREPLACE
        let flags = fixed | (area.noReserve ? 0x4000 : 0)
        let anywhere = UInt64.max
        switch area.kind {
        case .anonymous, .stack:
            batch.call(
                .mmap, .int(range.lowerBound), .int(range.count), .int(area.protection),
                .int(flags | 0x22 | (area.kind == .stack ? 0x100 : 0)), .value(anywhere), .value(0),
                doing: "mapping \(range.hex)")
        case .sharedAnonymous:
            batch.call(
                .mmap, .int(range.lowerBound), .int(range.count), .value(3), .int(flags | 0x21), .value(anywhere),
                .value(0),
                doing: "mapping shared memory \(range.hex)")
        default:
            let path = batch.string(area.path)
            let file = batch.call(
                .open, .address(path), .int(O_RDONLY | O_CLOEXEC), .value(0), doing: "opening \(area.path) to map it")
            batch.call(
                .mmap, .int(range.lowerBound), .int(range.count), .int(area.protection),
                .int(flags | (area.kind == .sharedFile ? 1 : 2)), .result(file),
                .int(area.offset + (range.lowerBound - area.start)), doing: "mapping \(area.path) at \(range.hex)")
            batch.call(.close, .result(file), doing: "closing \(area.path)")
        }
    }
}

extension MemoryArea {
    /// Mappings of the kernel's own, which are moved as a whole and never made.
    var isSpecial: Bool { kind == .vdso || kind == .vvar || kind == .vsyscall }
}

extension AddressRange {
    var hex: String { "0x\(String(lowerBound, radix: 16))-0x\(String(upperBound, radix: 16))" }
}

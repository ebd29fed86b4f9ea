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
    /// The area's name, or none, to a part of it that has another.
    case name(AddressRange, String)
}

public enum AddressSpacePlan {
    /// Memory that the destination, going from one layout to the other, maps anew: whatever it held there is gone.
    public static func mappedAnew(from old: [MemoryArea], to new: [MemoryArea]) -> AddressRanges {
        AddressRanges(
            plan(from: old, to: new).steps.compactMap { step in
                if case .map(_, let range) = step { range } else { nil }
            })
    }

    /// The steps that turn `old` into `new`, both sorted; special mappings are left alone. Memory that both have in
    /// common stays with its content.
    ///
    /// `assembled` are private areas of the new layout that the steps put together from several pieces. The kernel may
    /// keep these apart, while the source's kernel has one mapping, which is what mremap(2) needs.
    static func plan(from old: [MemoryArea], to new: [MemoryArea]) -> (steps: [LayoutStep], assembled: [MemoryArea]) {
        let old = old.filter { !$0.isSpecial }, new = new.filter { !$0.isSpecial }
        let pieces = pieces(from: old, to: new)
        return (steps(by: pieces, from: old, to: new), assembled(of: pieces, new))
    }

    private static func steps(by pieces: [Piece], from old: [MemoryArea], to new: [MemoryArea]) -> [LayoutStep] {
        var unmaps = AddressRanges(), maps: [(Int, AddressRange)] = [], changes: [LayoutStep] = []
        for piece in pieces {
            let was = piece.was.map { old[$0] }
            if was != nil, !piece.stays { unmaps.append(piece.range) }
            guard let index = piece.becomes else { continue }
            let (becomes, range) = (new[index], piece.range)
            guard piece.stays, let was else {
                if let last = maps.last, last.0 == index, last.1.upperBound == range.lowerBound {
                    maps[maps.count - 1].1 = last.1.lowerBound..<range.upperBound
                } else {
                    maps.append((index, range))
                }
                continue
            }
            if was.protection != becomes.protection { changes.append(.protect(range, becomes.protection)) }
            if was.advice != becomes.advice { changes.append(.advise(becomes, range, after: was.advice)) }
            if !was.locked, becomes.locked { changes.append(.lock(range)) }
            if was.name != becomes.name { changes.append(.name(range, becomes.name)) }
        }
        var steps = unmaps.ranges.map { LayoutStep.unmap($0) }
        for (index, range) in merged(maps, new) { steps.append(.map(new[index], range)) }
        for (index, range) in maps { steps += attributes(of: new[index], in: range) }
        return steps + changes
    }

    /// What makes a part that was just mapped what the area is.
    private static func attributes(of area: MemoryArea, in range: AddressRange) -> [LayoutStep] {
        var steps: [LayoutStep] = []
        if area.kind == .sharedAnonymous { steps.append(.protect(range, area.protection)) }
        if area.advice != 0 { steps.append(.advise(area, range, after: 0)) }
        if area.locked { steps.append(.lock(range)) }
        if !area.name.isEmpty { steps.append(.name(range, area.name)) }
        return steps
    }

    /// The part of an area mapped anew, as it has to be.
    static func mapping(_ area: MemoryArea, _ range: AddressRange) -> [LayoutStep] {
        [.map(area, range)] + attributes(of: area, in: range)
    }

    private static func assembled(of pieces: [Piece], _ new: [MemoryArea]) -> [MemoryArea] {
        var found: [Int] = [], last: (area: Int, origin: Int?)?
        for piece in pieces {
            guard let area = piece.becomes else { continue }
            let origin = piece.stays ? piece.was : nil
            if let last, last.area == area, last.origin != origin, found.last != area { found.append(area) }
            last = (area, origin)
        }
        return found.map { new[$0] }.filter { $0.isPrivateAnonymous || $0.kind == .privateFile }
    }

    /// A range that lies in one area, or none, of each layout.
    private struct Piece {
        var range: AddressRange
        /// The areas' indices.
        var was, becomes: Int?
        /// It keeps its mapping.
        var stays: Bool
    }

    private static func pieces(from old: [MemoryArea], to new: [MemoryArea]) -> [Piece] {
        var cuts = Set<UInt64>()
        for area in old + new {
            cuts.insert(area.start)
            cuts.insert(area.end)
        }
        var pieces: [Piece] = [], changedObjects = Set<UInt64>(), changedFiles = Set<Int>(), origins: [Int: Int] = [:]
        let points = cuts.sorted()
        var i = 0, j = 0
        for (low, high) in zip(points, points.dropFirst()) {
            while i < old.count, old[i].end <= low { i += 1 }
            while j < new.count, new[j].end <= low { j += 1 }
            let was = i < old.count && old[i].start <= low ? i : nil
            let becomes = j < new.count && new[j].start <= low ? j : nil
            if was == nil, becomes == nil { continue }
            var stays = false
            if let was, let becomes { stays = new[becomes].continues(old[was]) }
            pieces.append(Piece(range: low..<high, was: was, becomes: becomes, stays: stays))
            guard let becomes else { continue }
            switch new[becomes].kind {
            case .sharedAnonymous where !stays: changedObjects.insert(new[becomes].object)
            case .sharedFile:
                let origin = stays ? was! : -1
                if origins.updateValue(origin, forKey: becomes).map({ $0 != origin }) == true {
                    changedFiles.insert(becomes)
                }
            default: break
            }
        }
        // Each mmap of shared memory makes an object of its own, and each opened file is another to the kernel: pieces
        // of several never become one mapping.
        if changedObjects.isEmpty, changedFiles.isEmpty { return pieces }
        for index in pieces.indices {
            guard let area = pieces[index].becomes else { continue }
            if changedFiles.contains(area)
                || new[area].kind == .sharedAnonymous && changedObjects.contains(new[area].object)
            {
                pieces[index].stays = false
            }
        }
        return pieces
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
            case .name(let range, let name):
                let text: CallBatch.Argument = name.isEmpty ? .value(0) : .address(batch.string(name))
                batch.call(
                    .prctl, .value(0x5356_4d41) /* PR_SET_VMA */, .value(0), .int(range.lowerBound), .int(range.count),
                    text, doing: "naming \(range.hex)")
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

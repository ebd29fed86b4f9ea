// Changes of an address space that is being restored.
import CLinux
import Glibc
import LinuxKernel
import Memory
import Testing

@testable import Engine

@Suite(.serialized, .enabled(if: geteuid() == 0)) struct LayoutTests {
    private static let page: UInt64 = 4096
    private static let base: UInt64 = 0x7000_0000_0000

    /// Runs with a stub that has been emptied, and ends it.
    private func withStub(_ body: (StubProcess, [MemoryArea]) throws -> Void) throws {
        let path = "/tmp/apus-stub-\(getpid())"
        try Stub.install(at: path)
        defer { unlink(path) }
        var pid: pid_t = 0
        let name = strdup(path)
        defer { free(name) }
        var arguments: [UnsafeMutablePointer<CChar>?] = [name, nil]
        try #require(posix_spawn(&pid, path, nil, nil, &arguments, nil) == 0)
        defer {
            kill(pid, SIGKILL)
            waitpid(pid, nil, __WALL)
        }
        // It stops when it runs, which is some time after it can be seen.
        let stub = try StubProcess(pid: pid)
        let reader = try AddressSpaceReader(pid: pid)
        try reader.refresh()
        let specials = reader.areas.filter { $0.isSpecial }
        try stub.prepare(for: specials)
        try body(stub, specials)
    }

    private func area(_ pages: Range<UInt64>, _ protection: UInt32 = 3) -> MemoryArea {
        var area = MemoryArea()
        (area.start, area.end) = (Self.base + pages.lowerBound * Self.page, Self.base + pages.upperBound * Self.page)
        (area.kind, area.protection) = (.anonymous, protection)
        return area
    }

    private func change(_ stub: StubProcess, _ specials: [MemoryArea], _ areas: [MemoryArea]) throws {
        try stub.change(to: CheckedLayout((specials + areas).sorted { $0.start < $1.start }))
    }

    /// Writes each page of an area, so that it has pages of its own.
    private func fill(_ stub: StubProcess, _ area: MemoryArea) throws {
        for address in stride(from: area.start, to: area.end, by: Int(Self.page)) {
            try stub.memory.poke([UInt8(truncatingIfNeeded: address >> 12), 1], at: address)
        }
    }

    private func expectContent(_ stub: StubProcess, _ pages: Range<UInt64>) throws {
        for page in pages {
            let address = Self.base + page * Self.page
            #expect(
                try stub.memory.peek(2, at: address) == [UInt8(truncatingIfNeeded: address >> 12), 1], "page \(page)")
        }
    }

    private func isOne(_ stub: StubProcess, _ area: MemoryArea) throws -> Bool {
        try stub.currentMaps().contains { $0.range.lowerBound <= area.start && $0.range.upperBound >= area.end }
    }

    @Test func aMappingThatGrewOverItsOldNeighbourIsOneMapping() throws {
        try withStub { stub, specials in
            let old = [area(10..<14), area(14..<16, 1), area(17..<30)]
            try change(stub, specials, old)
            for area in old { try fill(stub, area) }
            let new = area(10..<30)
            try change(stub, specials, [new])
            #expect(try isOne(stub, new))
            try expectContent(stub, 10..<16)
            try expectContent(stub, 17..<30)
            #expect(try stub.memory.peek(2, at: Self.base + 16 * Self.page) == [0, 0])
        }
    }

    /// Memory that was never writable is not accounted for, and does not join memory that was.
    @Test func aMappingThatGrewAndBecameReadOnlyIsOneMapping() throws {
        try withStub { stub, specials in
            let left = area(8..<10, 0), old = area(10..<20)
            try change(stub, specials, [left, old])
            try fill(stub, old)
            let new = area(10..<24, 1)
            try change(stub, specials, [left, new])
            #expect(try isOne(stub, new))
            try expectContent(stub, 10..<20)
            let maps = try stub.currentMaps()
            #expect(maps.allSatisfy { !$0.range.overlaps(new.range) || $0.protection == 1 })
            #expect(maps.contains { $0.range == left.range && $0.protection == 0 })
        }
    }

    @Test func aMappingThatGrewDownToItsNeighbourIsOneMapping() throws {
        try withStub { stub, specials in
            let left = area(10..<12), old = area(14..<20)
            try change(stub, specials, [left, old])
            try fill(stub, left)
            try fill(stub, old)
            let new = area(12..<20)
            try change(stub, specials, [left, new])
            #expect(try isOne(stub, new))
            try expectContent(stub, 10..<12)
            try expectContent(stub, 14..<20)
            // The neighbour is as it was.
            let maps = try stub.currentMaps().filter { $0.range.overlaps(left.range) }
            #expect(
                maps.allSatisfy { $0.protection == 3 } && maps.reduce(0) { $0 + $1.range.count } >= left.range.count)
        }
    }

    @Test func aPrivateMappingOfAFileThatGrewIsOneMappingAndKeepsItsChanges() throws {
        let path = "/tmp/apus-mapped-\(getpid())"
        let file = try FileDescriptor(opening: path, O_RDWR | O_CREAT | O_TRUNC, mode: 0o600)
        defer { unlink(path) }
        try checkC(ftruncate(file.number, 64 << 10), "making a file")
        try withStub { stub, specials in
            func mapping(_ pages: Range<UInt64>) -> MemoryArea {
                var mapping = area(pages)
                (mapping.kind, mapping.path, mapping.offset) = (.privateFile, path, (pages.lowerBound - 10) * Self.page)
                return mapping
            }
            try change(stub, specials, [mapping(10..<12)])
            try fill(stub, mapping(10..<12))
            let new = mapping(10..<20)
            try change(stub, specials, [new])
            #expect(try isOne(stub, new))
            try expectContent(stub, 10..<12)
        }
    }

    /// What waits elsewhere while it is joined is locked, too, and cannot be dropped page by page.
    @Test func aLockedMappingThatGrewIsOneMapping() throws {
        try withStub { stub, specials in
            func locked(_ pages: Range<UInt64>) -> MemoryArea {
                var locked = area(pages)
                locked.locked = true
                return locked
            }
            let old = [locked(10..<14), locked(15..<30)]
            try change(stub, specials, old)
            for area in old { try fill(stub, area) }
            let new = locked(10..<30)
            try change(stub, specials, [new])
            #expect(try isOne(stub, new))
            try expectContent(stub, 10..<14)
            try expectContent(stub, 15..<30)
        }
    }

    @Test func sharedMemoryThatGrewAgainIsOneObject() {
        func shared(_ pages: Range<UInt64>) -> MemoryArea {
            var shared = area(pages)
            (shared.kind, shared.object, shared.offset) = (.sharedAnonymous, 7, (pages.lowerBound - 10) * Self.page)
            return shared
        }
        // One object cannot be made of two: all of it is mapped anew, and the source sends it again.
        #expect(
            AddressSpacePlan.mappedAnew(from: [shared(10..<12)], to: [shared(10..<14)]).ranges
                == [shared(10..<14).range])
        #expect(AddressSpacePlan.mappedAnew(from: [shared(10..<14)], to: [shared(10..<12)]).isEmpty)
    }

    @Test func anAreaKnowsTheFreeSpaceAroundIt() throws {
        try withStub { stub, specials in
            let (first, second) = (area(10..<12), area(20..<22))
            try change(stub, specials, [first, second])
            let reader = try AddressSpaceReader(pid: stub.pid)
            try reader.refresh()
            let found = try #require(reader.tracked.first { $0.range.lowerBound == second.start })
            #expect(found.surroundings.lowerBound == first.end)
            #expect(found.surroundings.upperBound > second.end)
        }
    }
}

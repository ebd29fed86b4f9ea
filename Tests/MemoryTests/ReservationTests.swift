// Address space that a program reserves and uses little of: tracking it costs what is used.
import Glibc
import LinuxKernel
import Testing

@testable import Memory

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(1)))
struct ReservationTests {
    enum Kind: CaseIterable {
        case inaccessible, writable, shared
    }

    private func reserve(_ kind: Kind, in writer: Writer, gibibytes: UInt64) throws -> AddressRange {
        try writer.reserve(
            kind == .shared ? .sharedAnonymous : .anonymous, gibibytes: gibibytes, writable: kind != .inaccessible)
    }

    private func pageTables(of writer: Writer) throws -> UInt64 {
        try ProcessStatus(pid: writer.pid).numbers("VmPTE").first ?? 0
    }

    @Test(arguments: Kind.allCases)
    func aTebibyteReservedTakesNoPageTables(_ kind: Kind) throws {
        let writer = try Writer(pages: 1000)
        defer { writer.end() }
        try writer.track()
        let before = try pageTables(of: writer)
        let range = try reserve(kind, in: writer, gibibytes: 1024)
        for _ in 0..<3 { #expect(try writer.scan().intersection(AddressRanges([range])).isEmpty) }
        #expect(try writer.pass(stopped: true).discards.isEmpty)
        #expect(try pageTables(of: writer) < before + 1024)
    }

    @Test(arguments: Kind.allCases)
    func pagesThatAppearInAReservationAreFound(_ kind: Kind) throws {
        let writer = try Writer(pages: 1000)
        defer { writer.end() }
        try writer.track()
        let range = try reserve(kind, in: writer, gibibytes: 64)
        let all = AddressRanges([range])
        func pages(_ first: UInt64, _ count: UInt64) -> AddressRanges {
            AddressRanges([range.lowerBound + first * pageSize..<range.lowerBound + (first + count) * pageSize])
        }
        func found(stopped: Bool = false) throws -> (pages: AddressRanges, discards: AddressRanges) {
            let pass = try writer.pass(stopped: stopped)
            return (pass.pages.intersection(all), pass.discards.intersection(all))
        }
        _ = try found()
        // Far from everything, across two page tables, and in the table of a page that is tracked by then.
        for (first, count) in [(5_000_000, 1), (1_000_000 / 512 * 512 - 2, 4), (5_000_100, 3)] as [(UInt64, UInt64)] {
            writer.run("p \(first) \(count)")
            #expect(try found().pages == pages(first, count))
            #expect(try found().pages.isEmpty)
        }
        // A table that goes as a whole: dropped there once, and tracked no more.
        writer.run("z \(5_000_000 / 512 * 512) 1024")
        let gone = try found()
        #expect(gone.discards.intersection(pages(5_000_000, 1)) == pages(5_000_000, 1) && gone.pages.isEmpty)
        // Again, found by the pass over a stopped process alone, and once more by the next, for that protects nothing.
        writer.run("p 5000000 2")
        #expect(try found(stopped: true).pages == pages(5_000_000, 2))
        #expect(try found().pages == pages(5_000_000, 2))
        // Shared memory that was dropped a moment ago is sent once more at the end.
        if kind != .shared { #expect(try found(stopped: true).pages.isEmpty) }
    }

    /// A page comes after a pass, is sent because its mapping is new at the destination, and goes before the next pass.
    @Test(arguments: Kind.allCases)
    func whatIsSentBetweenPassesIsDroppedThereWhenItGoes(_ kind: Kind) throws {
        let writer = try Writer(pages: 1000)
        defer { writer.end() }
        try writer.track()
        let range = try reserve(kind, in: writer, gibibytes: 1)
        let page = AddressRanges([range.lowerBound + 5000 * pageSize..<range.lowerBound + 5001 * pageSize])
        _ = try writer.scan()
        writer.run("p 5000 1")
        #expect(try writer.contents(of: AddressRanges([range])) == page)
        writer.run("z \(5000 / 512 * 512) 1024")
        #expect(try writer.pass(stopped: true).discards.intersection(page) == page)
    }

    /// A mapping takes the place of what the maps showed, and more. If only that place were registered, the mapping
    /// would be split in two, and mremap(2) refuses a range that lies in two mappings.
    @Test func aMappingThatOutgrowsItsPlaceMeanwhileStaysOne() throws {
        let writer = try Writer(pages: 1000)
        defer { writer.end() }
        try writer.track()
        let range = try writer.reserve(.anonymous, gibibytes: 1)
        let index = try #require(writer.areas.firstIndex { $0.range == range })
        writer.areas[index].surroundings = range.lowerBound - 4 << 30..<range.upperBound
        try writer.pass(overtakenBy: { writer.run("o 1") })
        #expect(writer.run("g 1") == [0])
    }
}

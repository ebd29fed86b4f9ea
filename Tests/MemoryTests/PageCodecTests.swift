// Pages as bytes and back, between two memories of this process: no root, no other process.
import LinuxKernel
import Testing

@testable import Memory

/// A memory that is a buffer here. Pages that it does not hold are not mapped.
private final class Region: PageSource, PageSink {
    var pages: [UInt64: [UInt8]] = [:]
    /// Pages that show something without having been written.
    var backed: Set<UInt64> = []
    var discarded: [AddressRange] = []
    var writes = 0

    init(_ range: AddressRange) {
        for page in stride(from: range.lowerBound, to: range.upperBound, by: Int(pageSize)) {
            pages[page] = [UInt8](repeating: 0, count: Int(pageSize))
        }
    }

    func read(_ ranges: [AddressRange], into buffer: UnsafeMutableRawBufferPointer) -> Bool {
        var at = 0
        for range in ranges {
            for page in stride(from: range.lowerBound, to: range.upperBound, by: Int(pageSize)) {
                guard let content = pages[page] else { return false }
                for index in 0..<Int(pageSize) { buffer[at + index] = content[index] }
                at += Int(pageSize)
            }
        }
        return true
    }

    func write(_ ranges: [AddressRange], from buffer: UnsafeRawBufferPointer) -> Bool {
        var at = 0
        for range in ranges {
            for page in stride(from: range.lowerBound, to: range.upperBound, by: Int(pageSize)) {
                guard pages[page] != nil else { return false }
                pages[page] = [UInt8](buffer[at..<at + Int(pageSize)])
                writes += 1
                at += Int(pageSize)
            }
        }
        return true
    }

    func discard(_ ranges: [AddressRange]) { discarded += ranges }
    func hasContentUnwritten(at page: UInt64) -> Bool { backed.contains(page) }
}

@Suite struct PageCodecTests {
    private let memory = MemoryIdentity(7)

    private func range(_ first: UInt64, _ count: UInt64) -> AddressRange { first << 12..<(first + count) << 12 }

    private func batches(_ source: Region, _ ranges: [AddressRange], areComplete: Bool = true) throws -> [[UInt8]] {
        var batches: [[UInt8]] = []
        try PageEncoder(source, memory, name: "a region").encode(
            AddressRanges(ranges), areComplete: areComplete, between: {}
        ) {
            batches.append([UInt8]($0))
        }
        return batches
    }

    private func write(_ batches: [[UInt8]], with writer: PageWriter) throws {
        for batch in batches {
            try batch.withUnsafeBytes {
                let batch = try PageBatch($0)
                #expect(batch.memory == memory)
                try writer.write(batch)
            }
        }
    }

    @Test func pagesArriveAsTheyWereRead() throws {
        let source = Region(range(0x10, 1000)), sink = Region(range(0x10, 1000))
        for page in 0..<1000 where page % 3 != 0 {
            source.pages[UInt64(0x10 + page) << 12] = (0..<Int(pageSize)).map { UInt8(truncatingIfNeeded: page ^ $0) }
        }
        let batches = try batches(source, [range(0x10, 1000)])
        #expect(batches.count == 4 && batches.allSatisfy { $0.count <= PageCodec.longestBatch })
        try write(batches, with: PageWriter(sink))
        #expect(sink.pages == source.pages)
        // What is all zero travels as a run and is not written into fresh memory.
        #expect(sink.writes == 666)
        #expect(batches.reduce(0) { $0 + $1.count } < 670 * Int(pageSize))
    }

    @Test func zerosAreWrittenOverWhatWasThere() throws {
        let source = Region(range(1, 3)), sink = Region(range(1, 3)), writer = PageWriter(sink)
        source.pages[0x1000] = [UInt8](repeating: 9, count: Int(pageSize))
        sink.pages[0x2000] = [UInt8](repeating: 5, count: Int(pageSize))
        sink.backed = [0x2000]
        try write(try batches(source, [range(1, 3)]), with: writer)
        source.pages[0x1000] = [UInt8](repeating: 0, count: Int(pageSize))
        try write(try batches(source, [range(1, 3)]), with: writer)
        #expect(sink.pages == source.pages)
        // The first page twice, the file's page twice, the third never.
        #expect(sink.writes == 4)
    }

    @Test func onlyPagesThatAreHeldAreDropped() throws {
        let source = Region(range(1, 100)), sink = Region(range(1, 100)), writer = PageWriter(sink)
        for page in [10, 11, 50] as [UInt64] { source.pages[page << 12]![0] = 1 }
        try write(try batches(source, [range(1, 100)]), with: writer)
        try writer.discard([range(1, 20), 1 << 30..<1 << 44])
        #expect(sink.discarded == [range(10, 2)])
        writer.unmapped(AddressRanges([range(50, 1)]))
        try writer.discard([range(1, 100)])
        #expect(sink.discarded == [range(10, 2)])
    }

    @Test func pagesThatWentMeanwhileAreLeftOutUnlessAllHaveToBeThere() throws {
        let source = Region(range(1, 10)), sink = Region(range(1, 10))
        for page in 1...10 as ClosedRange<UInt64> { source.pages[page << 12]![0] = UInt8(page) }
        source.pages[4 << 12] = nil
        try write(try batches(source, [range(1, 10)], areComplete: false), with: PageWriter(sink))
        source.pages[4 << 12] = [UInt8](repeating: 0, count: Int(pageSize))
        #expect(sink.pages == source.pages)
        source.pages[4 << 12] = nil
        let error = #expect(throws: KernelError.self) { try batches(source, [range(1, 10)]) }
        #expect(error?.errno.rawValue == 14 /* EFAULT */)
    }

    @Test func pagesForMemoryThatIsNotLaidOutAreAnError() throws {
        let source = Region(range(1, 2)), sink = Region(range(1, 1))
        source.pages[0x2000]![0] = 1
        let batches = try batches(source, [range(1, 2)])
        let error = #expect(throws: InvalidPages.self) { try write(batches, with: PageWriter(sink)) }
        #expect(error?.description.contains("0x2000") == true, "\(String(describing: error))")
    }

    @Test func aBatchThatCannotBeIsRefused() throws {
        let source = Region(range(1, 2))
        source.pages[0x1000]![0] = 1
        let good = try batches(source, [range(1, 2)])[0]
        func refused(_ what: String, _ change: (inout [UInt8]) -> Void) {
            var bytes = good
            change(&bytes)
            #expect(throws: InvalidPages.self, "\(what)") { try bytes.withUnsafeBytes { _ = try PageBatch($0) } }
        }
        refused("no header") { $0 = Array($0[..<15]) }
        refused("more runs than there are") { $0[8] = 3 }
        refused("more runs than there can be") { $0[15] = 255 }
        refused("half a page") { $0[17] += 8 }
        refused("no page") { $0[24] = 0 }
        refused("an address of the kernel's half") { $0[23] = 255 }
        refused("a byte too many") { $0.append(0) }
        refused("a byte too few") { $0.removeLast() }
    }
}

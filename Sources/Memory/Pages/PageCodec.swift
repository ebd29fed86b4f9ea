// Pages as bytes. A batch is: the number of the memory, the number of runs, then for each run its first address and its
// page count with the lowest bit set if all of it is zero, then the contents of the others, one after another.
import Glibc
import LinuxKernel

/// Why bytes are no pages.
public struct InvalidPages: Error, CustomStringConvertible {
    public let description: String
    init(_ what: String) { description = what }
}

public enum PageCodec {
    /// The most pages that a batch can have.
    public static let pagesPerBatch = 256
    /// The longest batch, bytes.
    public static let longestBatch = headerSize + pagesPerBatch * (runSize + Int(pageSize))
    static let headerSize = 16, runSize = 16
}

/// Reads pages of a source and encodes them, a batch at a time.
public final class PageEncoder {
    private let source: any PageSource
    private let memory: MemoryIdentity
    /// What the memory is called in errors: "pid 12".
    private let name: String
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: PageCodec.longestBatch, alignment: 4096)
    /// Pages encoded with content: those that are all zero do not count.
    public private(set) var pages: UInt64 = 0

    /// - Parameter name: what the memory is called in errors: "pid 12".
    public init(_ source: any PageSource, _ memory: MemoryIdentity, name: String) {
        (self.source, self.memory, self.name) = (source, memory, name)
    }
    deinit { buffer.deallocate() }

    /// Contents lie after the room for the most runs there can be, so that they need not move.
    private var contents: UnsafeMutableRawPointer {
        buffer.baseAddress! + PageCodec.headerSize + PageCodec.pagesPerBatch * PageCodec.runSize
    }

    /// Encodes ranges of pages.
    ///
    /// - Parameters:
    ///   - areComplete: every page has to be there; else those that are not are left out.
    ///   - send: takes one batch, which is valid until it returns.
    ///   - between: called after each full batch.
    /// - Throws: EFAULT if one is missing that has to be there, and what the closures throw.
    public func encode(
        _ ranges: AddressRanges, areComplete: Bool, between: () throws -> Void,
        send: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        var chunk: [AddressRange] = [], count = 0
        for range in ranges.ranges {
            var start = range.lowerBound
            while start < range.upperBound {
                let end = min(range.upperBound, start + UInt64(PageCodec.pagesPerBatch - count) * pageSize)
                chunk.append(start..<end)
                count += Int((end - start) / pageSize)
                start = end
                if count == PageCodec.pagesPerBatch {
                    try encode(chunk, count, areComplete, send)
                    try between()
                    (chunk, count) = ([], 0)
                }
            }
        }
        if count > 0 { try encode(chunk, count, areComplete, send) }
    }

    private func encode(
        _ chunk: [AddressRange], _ count: Int, _ areComplete: Bool, _ send: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        let target = UnsafeMutableRawBufferPointer(start: contents, count: count * Int(pageSize))
        if try source.read(chunk, into: target) { return try send(batch(chunk)) }
        if areComplete {
            throw KernelError("reading pages of \(name) for the last time", Errno(EFAULT))
        }
        // Some of these are not mapped any more.
        for range in chunk {
            for page in stride(from: range.lowerBound, to: range.upperBound, by: Int(pageSize)) {
                let one = page..<page + pageSize
                let target = UnsafeMutableRawBufferPointer(start: contents, count: Int(pageSize))
                if try source.read([one], into: target) { try send(batch([one])) }
            }
        }
    }

    /// Makes a batch of what was read: contents that are all zero close up.
    private func batch(_ chunk: [AddressRange]) -> UnsafeRawBufferPointer {
        var runs: [(start: UInt64, pages: UInt64, zero: Bool)] = []
        var from = contents, kept = contents
        for range in chunk {
            for page in stride(from: range.lowerBound, to: range.upperBound, by: Int(pageSize)) {
                let zero = isZero(from)
                if let last = runs.last, last.zero == zero, last.start + last.pages * pageSize == page {
                    runs[runs.count - 1].pages += 1
                } else {
                    runs.append((page, 1, zero))
                }
                if !zero {
                    if kept != from { kept.copyMemory(from: from, byteCount: Int(pageSize)) }
                    kept += Int(pageSize)
                    pages += 1
                }
                from += Int(pageSize)
            }
        }
        let start = contents - runs.count * PageCodec.runSize - PageCodec.headerSize
        start.storeBytes(of: memory.number, as: UInt64.self)
        start.storeBytes(of: UInt64(runs.count), toByteOffset: 8, as: UInt64.self)
        for (index, run) in runs.enumerated() {
            let place = PageCodec.headerSize + index * PageCodec.runSize
            start.storeBytes(of: run.start, toByteOffset: place, as: UInt64.self)
            start.storeBytes(of: run.pages << 1 | (run.zero ? 1 : 0), toByteOffset: place + 8, as: UInt64.self)
        }
        return UnsafeRawBufferPointer(start: start, count: kept - start)
    }

    private func isZero(_ page: UnsafeMutableRawPointer) -> Bool {
        page.load(as: UInt64.self) == 0 && memcmp(page, page + 8, Int(pageSize) - 8) == 0
    }
}

/// What a batch of pages holds.
public struct PageBatch {
    public let memory: MemoryIdentity
    /// Ranges with content, and those that are all zero.
    public private(set) var content: [AddressRange] = [], zero: [AddressRange] = []
    /// The contents of the first, one after another.
    public let contents: UnsafeRawBufferPointer

    /// Reads a batch that may hold anything; whether the addresses are mapped is the kernel's to say.
    public init(_ bytes: UnsafeRawBufferPointer) throws(InvalidPages) {
        guard bytes.count >= PageCodec.headerSize else { throw InvalidPages("without a count") }
        memory = MemoryIdentity(bytes.loadUnaligned(as: UInt64.self))
        let count = bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
        guard count <= PageCodec.pagesPerBatch,
            bytes.count >= PageCodec.headerSize + Int(count) * PageCodec.runSize
        else { throw InvalidPages("of \(count) runs") }
        var length: UInt64 = 0
        for index in 0..<Int(count) {
            let place = PageCodec.headerSize + index * PageCodec.runSize
            let start = bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self)
            let word = bytes.loadUnaligned(fromByteOffset: place + 8, as: UInt64.self)
            let pages = word >> 1
            guard start % pageSize == 0, pages > 0, pages <= PageCodec.pagesPerBatch, start < 1 << 47 else {
                throw InvalidPages("with a bad run")
            }
            let range = start..<start + pages * pageSize
            if word & 1 == 1 {
                zero.append(range)
            } else {
                content.append(range)
                length += pages * pageSize
            }
        }
        contents = UnsafeRawBufferPointer(
            rebasing: bytes[(PageCodec.headerSize + Int(count) * PageCodec.runSize)...])
        guard contents.count == length else { throw InvalidPages("of the wrong length") }
    }
}

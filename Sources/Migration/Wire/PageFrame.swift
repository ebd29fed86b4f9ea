// Pages on the wire. A frame is: the number of runs, then for each its first address and its page count with the
// lowest bit set if the run is all zero, then the contents of the others, one after another.
import Engine
import Glibc
import LinuxKernel
import Memory

private let runSize = 16
private let pagesPerFrame = 256

/// Reads pages of a process and sends them.
final class PageSender {
    /// Bytes of a frame with as much as one can hold.
    static let longestFrame = 8 + pagesPerFrame * (runSize + Int(pageSize))

    private let memory: ProcessMemory
    private let connection: Connection
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: longestFrame, alignment: 4096)
    /// Pages sent with content.
    private(set) var pagesSent: UInt64 = 0
    private(set) var zeroPages: UInt64 = 0

    init(_ memory: ProcessMemory, _ connection: Connection) {
        self.memory = memory
        self.connection = connection
    }
    deinit { buffer.deallocate() }

    /// Sends pages. With `stopped` every one must be there; else those that were unmapped meanwhile are left out (the
    /// next pass knows).
    func send(_ pages: AddressRanges, stopped: Bool, between: () throws -> Void) throws {
        var chunk: [AddressRange] = [], count: UInt64 = 0
        for range in pages.ranges {
            var start = range.lowerBound
            while start < range.upperBound {
                let end = min(range.upperBound, start + (UInt64(pagesPerFrame) - count) * pageSize)
                chunk.append(start..<end)
                count += (end - start) / pageSize
                start = end
                if count == pagesPerFrame {
                    try send(chunk, count, stopped)
                    try between()
                    (chunk, count) = ([], 0)
                }
            }
        }
        if count > 0 { try send(chunk, count, stopped) }
    }

    private func send(_ chunk: [AddressRange], _ pages: UInt64, _ stopped: Bool) throws {
        // Contents go to the end of the room for the most runs there can be, so that they need not move.
        let contents = buffer.baseAddress! + 8 + pagesPerFrame * runSize
        let target = UnsafeMutableRawBufferPointer(start: contents, count: Int(pages * pageSize))
        if try !memory.read(chunk, into: target) {
            guard !stopped else {
                throw KernelError("reading pages of pid \(memory.pid) for the last time", Errno(EFAULT))
            }
            return try sendOneByOne(chunk)
        }
        // The end of a pass follows while the program runs; in the freeze nothing may wait for what comes after.
        try send(chunk, contents: contents, isFollowed: !stopped)
    }

    /// Some of these are not mapped any more.
    private func sendOneByOne(_ chunk: [AddressRange]) throws {
        let contents = buffer.baseAddress! + 8 + pagesPerFrame * runSize
        for range in chunk {
            for page in stride(from: range.lowerBound, to: range.upperBound, by: Int(pageSize)) {
                let one = page..<page + pageSize
                if try memory.read([one], into: UnsafeMutableRawBufferPointer(start: contents, count: Int(pageSize))) {
                    try send([one], contents: contents, isFollowed: true)
                }
            }
        }
    }

    private func send(_ chunk: [AddressRange], contents: UnsafeMutableRawPointer, isFollowed: Bool) throws {
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
                if zero {
                    zeroPages += 1
                } else {
                    if kept != from { kept.copyMemory(from: from, byteCount: Int(pageSize)) }
                    kept += Int(pageSize)
                    pagesSent += 1
                }
                from += Int(pageSize)
            }
        }
        let start = contents - runs.count * runSize - 8
        start.storeBytes(of: UInt64(runs.count), as: UInt64.self)
        for (index, run) in runs.enumerated() {
            start.storeBytes(of: run.start, toByteOffset: 8 + index * runSize, as: UInt64.self)
            start.storeBytes(
                of: run.pages << 1 | (run.zero ? 1 : 0), toByteOffset: 16 + index * runSize, as: UInt64.self)
        }
        try connection.send(.pages, UnsafeRawBufferPointer(start: start, count: kept - start), isFollowed: isFollowed)
    }

    private func isZero(_ page: UnsafeMutableRawPointer) -> Bool {
        page.load(as: UInt64.self) == 0 && memcmp(page, page + 8, Int(pageSize) - 8) == 0
    }
}

/// What a frame of pages holds.
struct PageFrame {
    /// Ranges with content, and those that are all zero.
    private(set) var content: [AddressRange] = [], zero: [AddressRange] = []
    /// The contents of the first, one after another.
    let contents: UnsafeRawBufferPointer

    /// Reads a frame that may hold anything; whether the addresses are mapped is the kernel's to say.
    init(_ payload: UnsafeRawBufferPointer) throws {
        guard payload.count >= 8 else { throw Self.invalid("without a count") }
        let count = payload.loadUnaligned(as: UInt64.self)
        guard count <= pagesPerFrame, payload.count >= 8 + Int(count) * runSize else {
            throw Self.invalid("of \(count) runs")
        }
        var bytes: UInt64 = 0
        for index in 0..<Int(count) {
            let start = payload.loadUnaligned(fromByteOffset: 8 + index * runSize, as: UInt64.self)
            let word = payload.loadUnaligned(fromByteOffset: 16 + index * runSize, as: UInt64.self)
            let pages = word >> 1
            guard start % pageSize == 0, pages > 0, pages <= pagesPerFrame, start < 1 << 47 else {
                throw Self.invalid("with a bad run")
            }
            let range = start..<start + pages * pageSize
            if word & 1 == 1 {
                zero.append(range)
            } else {
                content.append(range)
                bytes += pages * pageSize
            }
        }
        contents = UnsafeRawBufferPointer(rebasing: payload[(8 + Int(count) * runSize)...])
        guard contents.count == bytes else { throw Self.invalid("of the wrong length") }
    }

    static func invalid(_ what: String) -> MigrationError { .protocolViolation("a frame of pages \(what)") }
}

/// Writes pages that arrive into a stub.
final class PageReceiver {
    private let stub: StubProcess
    private var filled = PageSet()
    private let zeros = [UInt8](repeating: 0, count: Int(pageSize))

    init(_ stub: StubProcess) { self.stub = stub }

    func apply(_ payload: UnsafeRawBufferPointer) throws {
        let frame = try PageFrame(payload)
        if !frame.content.isEmpty {
            guard try stub.memory.write(frame.content, from: frame.contents) else {
                throw PageFrame.invalid("for memory that is not laid out")
            }
            for range in frame.content { filled.insert(range) }
        }
        try clear(frame.zero)
    }

    /// Zero content: written out over a page that may hold something else, nothing to do for fresh anonymous memory.
    private func clear(_ ranges: [AddressRange]) throws {
        for range in ranges {
            for page in stride(from: range.lowerBound, to: range.upperBound, by: Int(pageSize)) {
                let one = page..<page + pageSize
                if filled.overlaps(one) || stub.isFileBacked(page) {
                    guard try zeros.withUnsafeBytes({ try stub.memory.write([one], from: $0) }) else {
                        throw MigrationError.protocolViolation("a zero page for memory that is not laid out")
                    }
                    filled.insert(one)
                }
            }
        }
    }

    /// Drops content of pages; those that never had any cost nothing.
    func discard(_ ranges: [AddressRange]) throws {
        let held = ranges.flatMap { filled.parts(of: $0) }
        if held.isEmpty { return }
        try stub.discard(held)
        for range in held { filled.remove(range) }
    }

    /// Memory that is not mapped any more holds nothing.
    func layoutChanged(from old: [MemoryArea]) {
        for range in AddressRanges(old.map(\.range)).subtracting(AddressRanges(stub.layout.map(\.range))).ranges {
            filled.remove(range)
        }
    }
}

/// A set of page numbers, as bitmaps of 64 pages.
private struct PageSet {
    private var words: [UInt64: UInt64] = [:]

    private func pieces(_ range: AddressRange) -> some Sequence<(word: UInt64, mask: UInt64, first: UInt64)> {
        let first = range.lowerBound / pageSize, end = range.upperBound / pageSize
        return sequence(state: first) { page -> (word: UInt64, mask: UInt64, first: UInt64)? in
            guard page < end else { return nil }
            let word = page / 64, low = page % 64, high = min(64, low + end - page)
            let mask = (high == 64 ? UInt64.max : 1 << high - 1) & ~(1 << low - 1)
            let start = page
            page = word * 64 + high
            return (word, mask, start)
        }
    }

    mutating func insert(_ range: AddressRange) {
        for piece in pieces(range) { words[piece.word, default: 0] |= piece.mask }
    }

    mutating func remove(_ range: AddressRange) {
        // A range may span terabytes of reservations: walk what is held instead, if that is less.
        if UInt64(range.count) / (64 * pageSize) > UInt64(words.count) {
            for (word, bits) in words {
                let pages = word * 64 * pageSize..<(word + 1) * 64 * pageSize
                guard bits != 0, pages.overlaps(range) else { continue }
                for piece in pieces(range.clamped(to: pages)) { words[word]! &= ~piece.mask }
            }
        } else {
            for piece in pieces(range) where words[piece.word] != nil { words[piece.word]! &= ~piece.mask }
        }
    }

    func overlaps(_ range: AddressRange) -> Bool {
        pieces(range).contains { words[$0.word, default: 0] & $0.mask != 0 }
    }

    /// The parts of a range that are in the set, in runs.
    func parts(of range: AddressRange) -> [AddressRange] {
        var found: [AddressRange] = []
        func look(_ piece: (word: UInt64, mask: UInt64, first: UInt64)) {
            var bits = words[piece.word, default: 0] & piece.mask
            while bits != 0 {
                let page = (piece.word * 64 + UInt64(bits.trailingZeroBitCount)) * pageSize
                found.append(page..<page + pageSize)
                bits &= bits - 1
            }
        }
        if UInt64(range.count) / (64 * pageSize) > UInt64(words.count) {
            for (word, bits) in words where bits != 0 {
                let pages = word * 64 * pageSize..<(word + 1) * 64 * pageSize
                if pages.overlaps(range) { pieces(range.clamped(to: pages)).forEach(look) }
            }
        } else {
            pieces(range).forEach(look)
        }
        return AddressRanges(found).ranges
    }
}

extension Connection {
    /// Ranges whose pages are to be dropped.
    func sendDiscards(_ ranges: AddressRanges) throws {
        let list = ranges.ranges
        for start in stride(from: 0, to: list.count, by: 65536) {
            let words = list[start..<min(start + 65536, list.count)].flatMap { [$0.lowerBound, $0.upperBound] }
            try words.withUnsafeBytes { try send(.discard, $0) }
        }
    }
}

enum DiscardFrame {
    /// The ranges of a discard frame.
    static func ranges(of payload: UnsafeRawBufferPointer) throws -> [AddressRange] {
        guard payload.count % 16 == 0 else {
            throw MigrationError.protocolViolation("a discard frame of \(payload.count) bytes")
        }
        return try (0..<payload.count / 16).map { index in
            let low = payload.loadUnaligned(fromByteOffset: index * 16, as: UInt64.self)
            let high = payload.loadUnaligned(fromByteOffset: index * 16 + 8, as: UInt64.self)
            guard low < high, high <= 1 << 47, low % pageSize == 0, high % pageSize == 0 else {
                throw MigrationError.protocolViolation("a discard frame with a bad range")
            }
            return low..<high
        }
    }
}

// A large set of pages.
import LinuxKernel

/// A set of page numbers, as bitmaps of 64 pages.
struct PageSet {
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

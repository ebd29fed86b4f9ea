// Puts the pages that arrive into a memory, and remembers which it has.
import LinuxKernel

/// Writes batches of pages into a sink.
public final class PageWriter {
    private let sink: any PageSink
    private var filled = PageSet()
    private let zeros = [UInt8](repeating: 0, count: Int(pageSize))

    public init(_ sink: any PageSink) { self.sink = sink }

    /// - Throws: `InvalidPages` if a page is for memory that is not laid out.
    public func write(_ batch: PageBatch) throws {
        if !batch.content.isEmpty {
            guard try sink.write(batch.content, from: batch.contents) else {
                throw InvalidPages("from \(Self.text(batch.content[0].lowerBound)) on, of which not all is laid out")
            }
            for range in batch.content { filled.insert(range) }
        }
        for range in batch.zero { try clear(range) }
    }

    /// Zero content: written out over a page that may hold something else, nothing to do for fresh memory.
    private func clear(_ range: AddressRange) throws {
        for page in stride(from: range.lowerBound, to: range.upperBound, by: Int(pageSize)) {
            let one = page..<page + pageSize
            guard filled.overlaps(one) || sink.hasContentUnwritten(at: page) else { continue }
            guard try zeros.withUnsafeBytes({ try sink.write([one], from: $0) }) else {
                throw InvalidPages("with zeros at \(Self.text(page)), where nothing is laid out")
            }
            filled.insert(one)
        }
    }

    private static func text(_ address: UInt64) -> String { "0x" + String(address, radix: 16) }

    /// Drops content of pages; those that never had any cost nothing.
    public func discard(_ ranges: [AddressRange]) throws {
        let held = ranges.flatMap { filled.parts(of: $0) }
        if held.isEmpty { return }
        try sink.discard(held)
        for range in held { filled.remove(range) }
    }

    /// Memory that is not mapped any more holds nothing.
    public func unmapped(_ ranges: AddressRanges) { for range in ranges.ranges { filled.remove(range) } }
}

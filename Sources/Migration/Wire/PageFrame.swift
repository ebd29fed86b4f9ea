// Pages on the wire: frames that hold a batch each (`PageCodec`), and frames that name pages to be dropped.
import Engine
import LinuxKernel
import Memory

/// Reads pages of one memory and sends them.
final class PageSender {
    private let memory: MemoryIdentity
    private let encoder: PageEncoder
    private let connection: Connection

    init(_ source: ProcessMemory, _ memory: MemoryIdentity, _ connection: Connection) {
        (self.memory, self.connection) = (memory, connection)
        encoder = PageEncoder(source, memory, name: "pid \(source.pid)")
    }

    /// Pages sent with content.
    var pagesSent: UInt64 { encoder.pages }

    /// Sends pages. With `stopped` every one must be there; else those that were unmapped meanwhile are left out (the
    /// next pass knows).
    func send(_ pages: AddressRanges, stopped: Bool, between: () throws -> Void) throws {
        try encoder.encode(pages, areComplete: stopped, between: between) {
            // The end of a pass follows while the program runs; in the freeze nothing may wait for what comes after.
            try connection.send(.pages, $0, isFollowed: !stopped)
        }
    }

    /// Has the content of pages dropped.
    func discard(_ ranges: AddressRanges) throws {
        let list = ranges.ranges
        for start in stride(from: 0, to: list.count, by: DiscardFrame.mostRanges) {
            let some = list[start..<min(start + DiscardFrame.mostRanges, list.count)]
            let words = [memory.number] + some.flatMap { [$0.lowerBound, $0.upperBound] }
            try words.withUnsafeBytes { try connection.send(.discard, $0) }
        }
    }
}

/// Puts the pages that arrive into the memories of a container.
final class PageReceiver {
    private let writers: [MemoryIdentity: PageWriter]

    init(_ sinks: [MemoryIdentity: any PageSink]) { writers = sinks.mapValues { PageWriter($0) } }

    func apply(_ payload: UnsafeRawBufferPointer) throws {
        do {
            let batch = try PageBatch(payload)
            try writer(of: batch.memory).write(batch)
        } catch let error as InvalidPages {
            throw MigrationError.protocolViolation("a frame of pages \(error)")
        }
    }

    func discard(_ payload: UnsafeRawBufferPointer) throws {
        let frame = try DiscardFrame(payload)
        try writer(of: frame.memory).discard(frame.ranges)
    }

    func has(_ memory: MemoryIdentity) -> Bool { writers[memory] != nil }

    private func writer(of memory: MemoryIdentity) throws -> PageWriter {
        guard let writer = writers[memory] else {
            throw MigrationError.protocolViolation("pages of memory \(memory.number), which there is none of")
        }
        return writer
    }

    /// The layout of a memory is another one: what is not mapped any more holds nothing.
    func layoutChanged(_ memory: MemoryIdentity, from old: [MemoryArea], to new: [MemoryArea]) {
        let gone = AddressRanges(old.map(\.range)).subtracting(AddressRanges(new.map(\.range)))
        writers[memory]?.unmapped(gone)
    }
}

/// What a discard frame says: the number of a memory, then first and end address of each range.
struct DiscardFrame {
    /// A frame is no longer than other frames of pages.
    static let mostRanges = 65535

    let memory: MemoryIdentity
    let ranges: [AddressRange]

    init(_ payload: UnsafeRawBufferPointer) throws {
        guard payload.count >= 8, payload.count % 16 == 8 else {
            throw MigrationError.protocolViolation("a discard frame of \(payload.count) bytes")
        }
        memory = MemoryIdentity(payload.loadUnaligned(as: UInt64.self))
        ranges = try (0..<payload.count / 16).map { index in
            let low = payload.loadUnaligned(fromByteOffset: 8 + index * 16, as: UInt64.self)
            let high = payload.loadUnaligned(fromByteOffset: 16 + index * 16, as: UInt64.self)
            guard low < high, high <= 1 << 47, low % pageSize == 0, high % pageSize == 0 else {
                throw MigrationError.protocolViolation("a discard frame with a bad range")
            }
            return low..<high
        }
    }
}

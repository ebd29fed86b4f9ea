// eventfd(2).
import Glibc
import LinuxKernel

enum EventCounterKind: DescriptorKind {
    static func matches(_ probe: DescriptorProbe) -> Bool { probe.link == "anon_inode:[eventfd]" }

    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) throws -> OpenFile.OneOf_Kind {
        var counter = EventCounter()
        let count = try probe.info("eventfd-count").first ?? "0"
        counter.count = UInt64(count.drop { $0 == " " || $0 == "\t" }, radix: 16) ?? 0
        counter.semaphore = try probe.info("eventfd-semaphore").first?.contains("1") ?? false
        return .event(counter)
    }

    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .event = kind { true } else { false }
    }

    static func create(_ file: OpenFile, _ context: DescriptorRestore, _ batch: inout CallBatch) -> CallBatch.Argument {
        let semaphore: Int32 = file.event.semaphore ? 1 : 0
        return .result(batch.call(.eventfd2, .value(0), .int(semaphore | O_CLOEXEC), doing: "making an eventfd"))
    }

    static var needsFilling: Bool { true }

    static func fill(_ file: OpenFile, _ copy: FileDescriptor, _ image: ProcessImage, _ tools: RestoreTools) throws {
        guard file.event.count != 0 else { return }
        let count = file.event.count
        try withUnsafeBytes(of: count) { try copy.write($0) }
    }
}

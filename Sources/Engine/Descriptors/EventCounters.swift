// eventfd(2).
import Glibc
import LinuxKernel

enum EventCounterKind: DescriptorKind {
    static let link = "anon_inode:[eventfd]"
    /// The field of fdinfo that an eventfd has, and nothing else.
    static let mark = "eventfd-count"

    static func matches(_ probe: DescriptorProbe) -> Bool { probe.link == link }

    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) throws -> OpenFile.OneOf_Kind {
        var counter = EventCounter()
        let count = try probe.info(mark).first ?? "0"
        counter.count = UInt64(count.drop { $0 == " " || $0 == "\t" }, radix: 16) ?? 0
        counter.semaphore = try probe.info("eventfd-semaphore").first?.contains("1") ?? false
        return .event(counter)
    }

    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .event = kind { true } else { false }
    }

    static var flagsOfCreation: Int32 { O_NONBLOCK }

    static func create(_ file: OpenFile, _ batch: inout CallBatch) -> CallBatch.Argument {
        let flags = (file.event.semaphore ? 1 : 0) | Int32(bitPattern: file.flags) & O_NONBLOCK | O_CLOEXEC
        return .result(
            batch.call(.eventfd2, .int(Self.first(of: file.event)), .int(flags), doing: "making an eventfd"))
    }

    /// eventfd(2) takes 32 bits of a first count.
    private static func first(of counter: EventCounter) -> UInt32 { UInt32(clamping: counter.count) }

    static func needsFilling(_ file: OpenFile) -> Bool { file.event.count > UInt64(first(of: file.event)) }

    static func fill(_ file: OpenFile, _ copy: FileDescriptor, among all: [OpenFile], _ tools: RestoreTools) throws {
        let rest = file.event.count - UInt64(first(of: file.event))
        try withUnsafeBytes(of: rest) { try copy.write($0) }
    }
}

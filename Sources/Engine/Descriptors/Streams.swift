// Standard streams that the runtime gave: they become the destination's own.
import Glibc
import LinuxKernel

enum StreamKind: DescriptorKind {
    // Which files are streams is known to the context alone: `capture` of the table asks it first.
    static func matches(_ probe: DescriptorProbe) -> Bool { false }
    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) -> OpenFile.OneOf_Kind {
        var stream = StandardStream()
        stream.number = context.streams[.init(probe.status)] ?? 1
        return .stream(stream)
    }
    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .stream = kind { true } else { false }
    }
    static func create(_ file: OpenFile, _ context: DescriptorRestore, _ batch: inout CallBatch) throws
        -> CallBatch.Argument
    {
        guard Int(file.stream.number) < context.streams.count else {
            throw EngineError.invalidImage("standard stream \(file.stream.number)")
        }
        // A further descriptor of the same open file: the caller closes this one.
        return .result(
            batch.call(
                .fcntl, context.streams[Int(file.stream.number)], .int(F_DUPFD_CLOEXEC), .value(0),
                doing: "taking a standard stream"))
    }
}

// Standard streams that the runtime gave: they become the destination's own, which the stub has from its start.
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
    static var flagsOfCreation: Int32 { ~0 }
    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .stream = kind { true } else { false }
    }
    static func validate(_ file: OpenFile) throws(EngineError) {
        try ImageCheck.need(file.stream.number <= 2, "standard stream \(file.stream.number)")
    }
}

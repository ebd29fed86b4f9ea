// The fields of the kernel's mm_struct that are no mappings: code, data, heap, stack and argument bounds, auxv,
// executable.
import Glibc
import LinuxKernel

struct AddressSpaceFields: ProcessResource {
    private var brk = 0
    private var hugePages = 0

    mutating func ask(_ context: CaptureContext, _ batch: inout CallBatch) {
        brk = batch.call(SystemCall(rawValue: 12), .value(0), doing: "reading the program break")
        hugePages = batch.call(.prctl, .value(42), must: false, doing: "reading PR_GET_THP_DISABLE")
    }

    func collect(_ context: CaptureContext, _ answers: CallResults, into parts: inout ProcessParts) throws {
        let fields = try ProcessFiles.statistics(of: context.pid).map { UInt64($0) ?? 0 }
        func field(_ number: Int) -> UInt64 { fields[number - 3] }
        var space = AddressSpace()
        (space.startCode, space.endCode, space.startStack) = (field(26), field(27), field(28))
        (space.startData, space.endData, space.startBrk) = (field(45), field(46), field(47))
        (space.argStart, space.argEnd, space.envStart, space.envEnd) = (field(48), field(49), field(50), field(51))
        space.brk = UInt64(bitPattern: answers[brk])
        space.thpDisabled = answers[hugePages] == 1
        space.auxv = Bytes(try SmallFile.read("/proc/\(context.pid)/auxv"))
        space.executable = try ProcessFiles.link("/proc/\(context.pid)/exe")
        parts.space = space
    }

    static func restore(_ parts: ProcessParts, _ context: RestoreContext, _ batch: inout CallBatch) {
        let space = parts.space
        let path = batch.string(space.executable)
        let file = batch.call(
            .open, .address(path), .int(O_RDONLY | O_CLOEXEC), .value(0), doing: "opening \(space.executable)")
        // struct prctl_mm_map: the last two 32-bit fields are auxv_size and exe_fd, which the blob cannot fill in by
        // reference. All of the program's descriptors are at their numbers, so the lowest one besides is what open
        // gives.
        let taken = Set(parts.descriptors.map(\.number))
        let place = (0...).first { !taken.contains($0) } ?? 0
        batch.expect(.result(file), toBe: place)
        let auxv = batch.bytes(space.auxv)
        let map = batch.words([
            space.startCode, space.endCode, space.startData, space.endData, space.startBrk, space.brk, space.startStack,
            space.argStart, space.argEnd, space.envStart, space.envEnd, 0,
            UInt64(space.auxv.count) | UInt64(place) << 32,
        ])
        batch.setAddress(of: auxv, at: map.advanced(by: 88))
        batch.call(
            .prctl, .value(35), .value(14), .address(map), .value(104), .value(0),
            doing: "setting the bounds of the address space")
        batch.call(.close, .int(place), doing: "closing \(space.executable)")
        if space.thpDisabled { batch.call(.prctl, .value(41), .value(1), doing: "disabling huge pages") }
    }
}

// Anonymous pipes whose both ends belong to the process, with what is in them.
import CLinux
import Glibc
import LinuxKernel

enum PipeKind: DescriptorKind {
    static func matches(_ probe: DescriptorProbe) -> Bool { probe.type == S_IFIFO }

    static func obstacle(_ probe: DescriptorProbe) -> String? {
        if !probe.link.hasPrefix("pipe:[") { return "named pipe \(probe.link), not carried yet" }
        if probe.flags & O_ACCMODE == O_RDWR { return "pipe opened again through /proc, not carried yet" }
        return nil
    }

    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) throws -> OpenFile.OneOf_Kind {
        var end = PipeEnd()
        end.pipe = UInt64(probe.status.st_ino)
        end.writeEnd = probe.flags & O_ACCMODE == O_WRONLY
        end.capacity = UInt32(try check(clx_fcntl(probe.copy.number, 1032, 0), "reading the capacity of \(probe.link)"))
        if !end.writeEnd { end.content = try content(probe, Int(end.capacity), packets: &end.packets) }
        return .pipe(end)
    }

    /// Copies what is in a pipe without taking it: tee(2) into one of our own of the same size. A packet-mode pipe
    /// gives one packet a read, and so does its copy.
    private static func content(_ probe: DescriptorProbe, _ capacity: Int, packets: inout [UInt32]) throws -> Bytes {
        var waiting: Int32 = 0
        try check(clx_ioctl(probe.copy.number, UInt(FIONREAD), &waiting), "asking what \(probe.link) holds")
        if waiting == 0 { return Bytes() }
        var ends: [Int32] = [0, 0]
        try checkC(pipe(&ends), "making a pipe")
        let reader = FileDescriptor(owning: ends[0]), writer = FileDescriptor(owning: ends[1])
        try check(clx_fcntl(writer.number, 1031, capacity), "sizing a pipe to \(capacity) bytes")
        let copied = try check(
            clx_tee(probe.copy.number, writer.number, capacity), "copying the content of \(probe.link)")
        var buffer = [UInt8](repeating: 0, count: copied)
        var content = Bytes()
        while content.count < copied {
            let n = read(reader.number, &buffer, buffer.count)
            try checkC(n, "reading the content of \(probe.link)")
            content += buffer[..<n]
            packets.append(UInt32(n))
        }
        // The packet mode is known by the write end's O_DIRECT; without it the lengths say nothing.
        return content
    }

    static func pair(_ file: OpenFile) -> (number: UInt64, isSecond: Bool)? { (file.pipe.pipe, file.pipe.writeEnd) }

    static func createPair(_ file: OpenFile, _ batch: inout CallBatch) -> CallBatch.DataReference {
        let ends = batch.space(8)
        batch.call(.pipe2, .address(ends), .int(O_CLOEXEC), doing: "making a pipe")
        return ends
    }

    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .pipe = kind { true } else { false }
    }

    static func validate(_ file: OpenFile) throws(EngineError) {
        let end = file.pipe
        try ImageCheck.need(end.capacity <= 1 << 30, "a pipe of \(end.capacity) bytes")
        try ImageCheck.need(end.content.count <= Int(end.capacity), "a pipe that holds more than it can")
        let packets = end.packets.reduce(into: UInt64(0)) { $0 += UInt64($1) }
        try ImageCheck.need(
            end.packets.isEmpty || packets == UInt64(end.content.count), "packets that are not their pipe's content")
    }

    static func needsFilling(_ file: OpenFile) -> Bool { !file.pipe.writeEnd }

    static func fill(_ file: OpenFile, _ copy: FileDescriptor, among all: [OpenFile], _ tools: RestoreTools) throws {
        let end = file.pipe
        try check(clx_fcntl(copy.number, 1031, Int(end.capacity)), "sizing a pipe to \(end.capacity) bytes")
        if end.content.isEmpty { return }
        // A read end of one's own can be opened for writing through /proc.
        let packetMode = all.contains {
            guard case .pipe(let other) = $0.kind else { return false }
            return other.pipe == end.pipe && other.writeEnd && Int32($0.flags) & O_DIRECT_ != 0
        }
        let writer = try FileDescriptor(opening: "/proc/self/fd/\(copy.number)", O_WRONLY | O_NONBLOCK)
        // open(2) refuses O_DIRECT for a pipe; pipe2(2) and fcntl(2) take it.
        if packetMode {
            try check(clx_fcntl(writer.number, F_SETFL, Int(O_NONBLOCK | O_DIRECT_)), "setting a pipe's packet mode")
        }
        let content = [UInt8](end.content)
        var at = 0
        for length in packetMode ? end.packets.map(Int.init) : [content.count] {
            try content[at..<at + length].withUnsafeBytes { try writer.write($0) }
            at += length
        }
    }
}

/// O_DIRECT of x86-64, which Glibc only shows with _GNU_SOURCE.
let O_DIRECT_: Int32 = 0o40000

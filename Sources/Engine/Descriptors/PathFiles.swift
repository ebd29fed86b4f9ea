// Regular files, directories and character devices: opened again by their path in the container.
import CLinux
import Glibc
import LinuxKernel

enum PathFileKind: DescriptorKind {
    static func matches(_ probe: DescriptorProbe) -> Bool {
        [S_IFREG, S_IFDIR, S_IFCHR].contains(probe.type) && probe.link.hasPrefix("/")
    }

    static func obstacle(_ probe: DescriptorProbe) -> String? {
        if probe.link.hasPrefix("/memfd:") { return "memfd, not carried yet" }
        if probe.link.hasSuffix(" (deleted)") { return "deleted file, \(probe.link)" }
        if probe.type == S_IFCHR {
            // null, zero, full, random and urandom have no state.
            let stateless: Set<UInt64> = [0x103, 0x105, 0x107, 0x108, 0x109]
            if !stateless.contains(UInt64(probe.status.st_rdev)) {
                return "character device \(probe.link), not carried yet"
            }
        }
        var status = stat()
        guard stat("/proc/\(probe.pid)/root\(probe.link)", &status) == 0,
            status.st_ino == probe.status.st_ino || status.st_rdev != 0 && status.st_rdev == probe.status.st_rdev
        else { return "\(probe.link) is not that file in the container's root" }
        if isLocked(probe) { return "file lock on \(probe.link), not carried yet" }
        return nil
    }

    /// fdinfo names locks that were taken through this open file or by its process.
    private static func isLocked(_ probe: DescriptorProbe) -> Bool {
        ((try? SmallFile.text("/proc/\(probe.pid)/fdinfo/\(probe.number)")) ?? "").contains("\nlock:")
    }

    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) throws -> OpenFile.OneOf_Kind {
        var file = PathFile()
        file.path = probe.link
        file.type = probe.type
        file.device = UInt64(probe.status.st_rdev)
        if probe.type != S_IFCHR { file.offset = UInt64(max(0, lseek(probe.copy.number, 0, SEEK_CUR))) }
        return .path(file)
    }

    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .path = kind { true } else { false }
    }

    static func create(_ file: OpenFile, _ context: DescriptorRestore, _ batch: inout CallBatch) -> CallBatch.Argument {
        let image = file.path
        let path = batch.string(image.path)
        let flags = Int32(bitPattern: file.flags) & ~(O_CREAT | O_EXCL | O_TRUNC) | O_NOCTTY | O_CLOEXEC
        let opened = batch.call(.open, .address(path), .int(flags), .value(0), doing: "opening \(image.path)")
        if image.offset != 0 {
            batch.call(.lseek, .result(opened), .int(image.offset), .int(SEEK_SET), doing: "seeking in \(image.path)")
        }
        return .result(opened)
    }
}

// Regular files, directories and character devices: opened again by their path in the container. The path is what the
// kernel calls the open file when the process has stopped, and it is checked that it leads to that very file then; the
// destination has the same tree of files by the time it opens it.
import CLinux
import Glibc
import LinuxKernel

enum PathFileKind: DescriptorKind {
    static func matches(_ probe: DescriptorProbe) -> Bool {
        [S_IFREG, S_IFDIR, S_IFCHR].contains(probe.type) && probe.link.hasPrefix("/")
    }

    static func obstacle(_ probe: DescriptorProbe) -> String? {
        if let reason = PressureFile.obstacle(probe) { return reason }
        // The kernel adds " (deleted)" to the path of a file that is gone, but a file may also have such a name: which
        // of the two it is, only the file at that path tells.
        guard isAtItsPath(probe) else {
            if probe.link.hasPrefix("/memfd:") { return "memfd, not carried yet" }
            if probe.link.hasSuffix(" (deleted)") { return "deleted file, \(probe.link)" }
            return "\(probe.link) is not that file in the container's root"
        }
        if probe.type == S_IFCHR {
            // null, zero, full, random and urandom have no state.
            let stateless: Set<UInt64> = [0x103, 0x105, 0x107, 0x108, 0x109]
            if !stateless.contains(UInt64(probe.status.st_rdev)) {
                return "character device \(probe.link), not carried yet"
            }
        }
        if probe.type == S_IFDIR, let offset = FolderOffset.between(probe) {
            return "directory \(probe.link) that is read in part (offset \(offset)), not carried yet"
        }
        if isLocked(probe) { return "file lock on \(probe.link), not carried yet" }
        return nil
    }

    /// Does the path lead to the open file, or to a device node of the same device?
    private static func isAtItsPath(_ probe: DescriptorProbe) -> Bool {
        var path = probe.link
        // While the process runs the file may be renamed between the two looks: then it has another path by now.
        for _ in 0..<4 {
            if let found = FileIdentity.status(of: path, inRootOf: probe.pid) {
                if FileIdentity(found) == FileIdentity(probe.status) { return true }
                if found.st_rdev != 0, found.st_rdev == probe.status.st_rdev { return true }
            }
            guard let now = try? ProcessFiles.link("/proc/\(probe.pid)/fd/\(probe.number)"), now != path else {
                return false
            }
            path = now
        }
        return false
    }

    /// SQLite remembers a database's inode number and writes no more once that is another one, unless the database is
    /// in WAL mode.
    static func remembersInode(_ probe: DescriptorProbe) -> String? {
        guard probe.type == S_IFREG else { return nil }
        var header = [UInt8](repeating: 0, count: 20)
        let size = header.count
        guard clx_pread(probe.copy.number, &header, size, 0) == size,
            header.starts(with: Array("SQLite format 3\0".utf8))
        else { return nil }
        // File format write version and read version: 2 is WAL.
        if header[18] == 2, header[19] == 2 { return nil }
        return "\(probe.link) is a SQLite database in rollback journal mode, which could not be written after the move "
            + "since SQLite remembers inode numbers: put it into WAL mode, or say --accept inode-numbers"
    }

    /// fdinfo names locks that were taken through this open file or by its process.
    private static func isLocked(_ probe: DescriptorProbe) -> Bool {
        ((try? SmallFile.text("/proc/\(probe.pid)/fdinfo/\(probe.number)")) ?? "").contains("\nlock:")
    }

    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) throws -> OpenFile.OneOf_Kind {
        if !context.acceptsInodeNumbers, let reason = remembersInode(probe) {
            throw EngineError.obstacles([DescriptorTable.named(probe, reason)])
        }
        var file = PathFile()
        file.path = probe.link
        let offset = probe.type == S_IFCHR ? 0 : UInt64(max(0, lseek(probe.copy.number, 0, SEEK_CUR)))
        if probe.type == S_IFDIR { file.atEnd = offset != 0 } else { file.offset = offset }
        return .path(file)
    }

    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .path = kind { true } else { false }
    }

    static func validate(_ file: OpenFile) throws(EngineError) {
        try ImageCheck.path(file.path.path)
        try ImageCheck.need(file.path.offset <= UInt64(Int64.max), "a file's offset of \(file.path.offset)")
    }

    static func create(_ file: OpenFile, _ batch: inout CallBatch) -> CallBatch.Argument {
        let image = file.path
        let path = batch.string(image.path)
        let flags = Int32(bitPattern: file.flags) & ~(O_CREAT | O_EXCL | O_TRUNC) | O_NOCTTY | O_CLOEXEC
        let opened = batch.call(.open, .address(path), .int(flags), .value(0), doing: "opening \(image.path)")
        if image.offset != 0 {
            batch.call(.lseek, .result(opened), .int(image.offset), .int(SEEK_SET), doing: "seeking in \(image.path)")
        }
        return .result(opened)
    }

    static var flagsOfCreation: Int32 { ~0 }

    static func needsFilling(_ file: OpenFile) -> Bool { file.path.atEnd }

    static func fill(_ file: OpenFile, _ copy: FileDescriptor, among all: [OpenFile], _ tools: RestoreTools) throws {
        try FolderOffset.moveToEnd(copy, file.path.path)
    }
}

// Files that a process has mapped: the destination must have the very same; and those that may change unseen.
import CLinux
import Glibc
import LinuxKernel

/// A file that a process of the container maps, as the source has it.
public struct MappedFile: Codable, Sendable, Hashable {
    /// Absolute path in the container.
    public var path: String
    public var size: UInt64
    /// 64 hexadecimal digits of SHA-256; nil: only the size is compared.
    public var digest: String?

    public init(path: String, size: UInt64, digest: String? = nil) {
        self.path = path
        self.size = size
        self.digest = digest
    }
}

public enum MappedFiles {
    /// Describes files on the source, with their digests, for `verify` on the destination.
    ///
    /// - Parameters:
    ///   - paths: absolute paths in the container.
    ///   - root: the container's root as its processes see it (`TreeRoot(process:folder:)` with "/").
    ///   - whileWorking: called again and again; throws to end it.
    public static func describe(
        _ paths: [String], root: TreeRoot, cache: DigestCache, whileWorking: () throws -> Void = {}
    ) throws -> [MappedFile] {
        try paths.map { path in
            let file = try open(path, root)
            let (digest, size) = try cache.digest(of: file, name: path, whileWorking: whileWorking)
            return MappedFile(path: path, size: size, digest: digest.description)
        }
    }

    /// Throws on the first file that is missing or differs, with its name and what differs.
    public static func verify(
        _ files: [MappedFile], root: TreeRoot, cache: DigestCache, whileWorking: () throws -> Void = {}
    ) throws {
        for wanted in files {
            let file: FileDescriptor
            do {
                file = try open(wanted.path, root)
            } catch {
                throw ContainerError("mapped file \(wanted.path) is not there on the destination: \(error)")
            }
            let size = try Stamp(file, wanted.path).size
            if size != wanted.size {
                throw ContainerError(
                    "mapped file \(wanted.path) differs on the destination: \(size) bytes instead of \(wanted.size)")
            }
            if let digest = wanted.digest,
                try cache.digest(of: file, name: wanted.path, whileWorking: whileWorking).0.description != digest
            {
                throw ContainerError(
                    "mapped file \(wanted.path) differs on the destination: same size, other content")
            }
        }
    }

    /// Mounts in the container are entered, links in it resolved below its root.
    private static func open(_ path: String, _ root: TreeRoot) throws -> FileDescriptor {
        let file = FileDescriptor(
            owning: try check(
                clx_openat2(
                    root.descriptor.number, path, UInt64(O_RDONLY | O_NONBLOCK), 0,
                    clx_RESOLVE_IN_ROOT | clx_RESOLVE_NO_MAGICLINKS), "opening \(path) in \(root.name)"))
        guard try Stamp(file, path).mode & S_IFMT == S_IFREG else {
            throw ContainerError("\(path) is not a regular file")
        }
        return file
    }
}

/// Files that a process has open.
public enum OpenFiles {
    /// Inodes of regular files that a process has open for writing through the page cache.
    public static func written(by pid: Int32) throws(KernelError) -> Set<UInt64> {
        var inodes: Set<UInt64> = [], direct: Set<UInt64> = []
        for number in try ProcessFiles.descriptors(of: pid) {
            var status = stat()
            // One that was closed since it was listed is none.
            guard stat("/proc/\(pid)/fd/\(number)", &status) == 0, status.st_mode & S_IFMT == S_IFREG,
                let info = try? SmallFile.text("/proc/\(pid)/fdinfo/\(number)"),
                let line = info.split(separator: "\n").first(where: { $0.hasPrefix("flags:") }),
                let flags = Int32(line.dropFirst(6).drop { $0 == "\t" || $0 == " " }, radix: 8)
            else { continue }
            if flags & O_ACCMODE != O_RDONLY { inodes.insert(UInt64(status.st_ino)) }
            if flags & 0o40000 /* O_DIRECT */ != 0 { direct.insert(UInt64(status.st_ino)) }
        }
        return inodes.subtracting(direct)
    }
}

/// Files whose content changes without a trace in their time stamps: a store through a shared mapping to a page that
/// is dirty already changes none, and on tmpfs no store does. They must be compared by content in the last pass.
public enum SharedMappings {
    /// Inodes of files that a process maps shared and has opened for writing, whatever the protection: it may have been
    /// writable a moment ago. The device is left out since some file systems show another one in maps than in stat(2).
    ///
    /// A caller keeps what earlier passes found: a mapping may be gone, its stores are not.
    public static func inodes(of pid: Int32) throws(KernelError) -> Set<UInt64> {
        let reader = try MemoryMapReader(pid: pid)
        _ = try reader.refresh()
        return inodes(of: pid, reader.entries)
    }

    /// The same, from maps that were just read.
    public static func inodes(of pid: Int32, _ maps: [MapEntry]) -> Set<UInt64> {
        var inodes: Set<UInt64> = []
        for entry in maps where entry.shared && entry.inode != 0 {
            var status = stat()
            let range = entry.range
            let link = "\(String(range.lowerBound, radix: 16))-\(String(range.upperBound, radix: 16))"
            // The link's mode tells how the file was opened.
            if lstat("/proc/\(pid)/map_files/\(link)", &status) == 0, status.st_mode & S_IWUSR == 0 { continue }
            inodes.insert(entry.inode)
        }
        return inodes
    }
}

// Remembers the digests of files that have not changed since, so that a tree is not read again for each move.
import CLinux
import Glibc
import LinuxKernel
import Synchronization

/// What tells whether a file is still the one that was read: stat(2)'s view of it.
struct Stamp: Hashable {
    var device: UInt64
    var inode: UInt64
    var mode: UInt32
    var links: UInt64
    var uid: UInt32
    var gid: UInt32
    var rdev: UInt64
    var size: UInt64
    var blocks: UInt64
    var modified: Timestamp
    var changed: Timestamp

    init(_ status: borrowing stat) {
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
        mode = status.st_mode
        links = UInt64(status.st_nlink)
        uid = status.st_uid
        gid = status.st_gid
        rdev = UInt64(status.st_rdev)
        size = UInt64(status.st_size)
        blocks = UInt64(status.st_blocks)
        modified = Timestamp(status.st_mtim)
        changed = Timestamp(status.st_ctim)
    }

    init(_ file: FileDescriptor, _ name: @autoclosure () -> String) throws(KernelError) {
        var status = stat()
        try checkC(fstat(file.number, &status), "examining \(name())")
        self.init(status)
    }

    var identity: FileIdentity { FileIdentity(device: device, inode: inode) }

    /// Whether a change made after the clock read `now` could leave this stamp as it is (the same tick of the
    /// kernel's clock): then an equal stamp proves nothing. `now` must be read *before* the stamp.
    func isRacy(at now: Timestamp) -> Bool {
        // A file system that keeps whole seconds (or two, as FAT does).
        if changed.nanoseconds == 0 { return changed.seconds + 2 >= now.seconds }
        return changed >= now
    }

    /// The clock that file systems take their time stamps from.
    static func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME_COARSE, &time)
        return Timestamp(time)
    }
}

/// Digests by device, inode, size, modification and change time; kept in a file. Any thread may use it.
public final class DigestCache: Sendable {
    private struct Key: Hashable {
        var device, inode, size: UInt64
        var modified, changed: Timestamp

        init(_ stamp: Stamp) {
            (device, inode, size) = (stamp.device, stamp.inode, stamp.size)
            (modified, changed) = (stamp.modified, stamp.changed)
        }
        init(_ reader: inout ByteReader) throws(ContainerError) {
            device = try reader.integer(UInt64.self)
            inode = try reader.integer(UInt64.self)
            size = try reader.integer(UInt64.self)
            modified = Timestamp(seconds: try reader.integer(Int64.self), nanoseconds: try reader.integer(Int64.self))
            changed = Timestamp(seconds: try reader.integer(Int64.self), nanoseconds: try reader.integer(Int64.self))
        }
    }
    private static let magic = Array("APUSDIG2".utf8)
    private let digests = Mutex<[Key: Digest]>([:])
    private let file: String?

    /// - Parameter file: where to keep it; nil: only in memory. A file that is missing or damaged counts as empty.
    public init(file: String?) {
        self.file = file
        guard let file, let bytes = try? SmallFile.read(file) else { return }
        var reader = ByteReader(bytes)
        guard (try? reader.raw(8)) == Self.magic, bytes.count >= 40,
            Digest(of: bytes.dropLast(32)) == Digest(bytes.suffix(32))
        else { return }
        var found: [Key: Digest] = [:]
        while reader.left > 32, let key = try? Key(&reader), let digest = (try? reader.raw(32)).flatMap({ Digest($0) })
        {
            found[key] = digest
        }
        digests.withLock { $0 = found }
    }

    /// Writes the file. Forgets everything first if it has grown beyond a million files.
    public func save() throws(KernelError) {
        guard let file else { return }
        var writer = ByteWriter()
        writer.put(raw: Self.magic)
        digests.withLock {
            if $0.count > 1_000_000 { $0 = [:] }
            for (key, digest) in $0 {
                for number in [key.device, key.inode, key.size] { writer.put(number) }
                for time in [key.modified, key.changed] {
                    writer.put(time.seconds)
                    writer.put(time.nanoseconds)
                }
                writer.put(raw: digest.bytes)
            }
        }
        writer.put(raw: Digest(of: writer.bytes).bytes)
        try ContainerDirectory.replace(file, with: writer.bytes)
    }

    /// The digest of an open regular file and its size, from the cache or by reading it.
    func digest(
        of open: FileDescriptor, name: @autoclosure () -> String, whileWorking: () throws -> Void = {}
    ) throws -> (Digest, size: UInt64) {
        let now = Stamp.now()
        let stamp = try Stamp(open, name())
        let key = Key(stamp)
        if let known = digests.withLock({ $0[key] }) { return (known, stamp.size) }
        let digest = try FileContent.digest(of: open, size: stamp.size, name: name(), whileWorking: whileWorking).0
        // Only what cannot have changed unnoticed meanwhile is remembered.
        if !stamp.isRacy(at: now), try Stamp(open, name()) == stamp { digests.withLock { $0[key] = digest } }
        return (digest, stamp.size)
    }
}

// One entry of a tree as it travels: what the destination needs to make the same.
import Glibc

/// A point in time as stat(2) has it.
public struct Timestamp: Hashable, Sendable, Comparable {
    public var seconds: Int64
    public var nanoseconds: Int64

    init(_ time: timespec) { (seconds, nanoseconds) = (Int64(time.tv_sec), Int64(time.tv_nsec)) }
    init(seconds: Int64, nanoseconds: Int64) { (self.seconds, self.nanoseconds) = (seconds, nanoseconds) }

    var timespec: timespec { Glibc.timespec(tv_sec: Int(seconds), tv_nsec: Int(nanoseconds)) }

    public static func < (a: Timestamp, b: Timestamp) -> Bool {
        (a.seconds, a.nanoseconds) < (b.seconds, b.nanoseconds)
    }
}

/// A file, folder, link or node of a tree.
public struct FileEntry: Sendable, Hashable {
    public enum Kind: UInt8, Sendable {
        case regular, directory, symbolicLink, fifo, socket, characterDevice, blockDevice

        init?(mode: UInt32) {
            switch mode & S_IFMT {
            case S_IFREG: self = .regular
            case S_IFDIR: self = .directory
            case S_IFLNK: self = .symbolicLink
            case S_IFIFO: self = .fifo
            case S_IFSOCK: self = .socket
            case S_IFCHR: self = .characterDevice
            case S_IFBLK: self = .blockDevice
            default: return nil
            }
        }

        /// The type's bits in a mode.
        var bits: UInt32 {
            switch self {
            case .regular: S_IFREG
            case .directory: S_IFDIR
            case .symbolicLink: S_IFLNK
            case .fifo: S_IFIFO
            case .socket: S_IFSOCK
            case .characterDevice: S_IFCHR
            case .blockDevice: S_IFBLK
            }
        }
    }

    /// An extended attribute: security.capability, user.*, POSIX ACLs.
    public struct Attribute: Sendable, Hashable {
        public var name: [UInt8]
        public var value: [UInt8]
    }

    /// Empty: the tree's root.
    public var path: TreePath
    public var kind: Kind
    /// Permissions with set-user-ID, set-group-ID and sticky bits (07777).
    public var mode: UInt32
    public var uid: UInt32
    public var gid: UInt32
    /// Bytes, of regular files.
    public var size: UInt64 = 0
    /// Bytes that take up space (holes do not), of regular files.
    public var allocated: UInt64 = 0
    public var modified: Timestamp
    /// Of device nodes: the kernel's number, as stat(2) has it.
    public var device: UInt64 = 0
    /// Of symbolic links.
    public var target: [UInt8] = []
    /// The path of an earlier entry of which this is another name (a hard link).
    public var linkedTo: TreePath?
    /// Sorted by name.
    public var attributes: [Attribute] = []
    /// SHA-256 of a regular file's content.
    public var digest: Digest?
}

extension FileEntry {
    /// The longest path below a root (PATH_MAX).
    static let longestPath = 4095

    /// Throws unless the path stays below its root by its names alone: none empty, "." or "..", none too long.
    static func check(_ path: TreePath, allowingRoot: Bool = false) throws(ContainerError) {
        if path.isEmpty && allowingRoot { return }
        let names = path.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        for name in names
        where name.isEmpty || name.count > 255 || name.contains(0) || name == [46] || name == [46, 46] {
            throw ContainerError("refusing the path \(text(path)): it may lead out of the tree")
        }
        if path.count > longestPath { throw ContainerError("refusing a path of \(path.count) bytes") }
    }

    func encode(into writer: inout ByteWriter) {
        writer.put(kind.rawValue)
        writer.put(path)
        writer.put(mode)
        writer.put(uid)
        writer.put(gid)
        writer.put(size)
        writer.put(allocated)
        writer.put(modified.seconds)
        writer.put(modified.nanoseconds)
        writer.put(device)
        writer.put(target)
        writer.put(UInt8(linkedTo == nil ? 0 : 1))
        if let linkedTo { writer.put(linkedTo) }
        writer.put(UInt32(attributes.count))
        for attribute in attributes {
            writer.put(attribute.name)
            writer.put(attribute.value)
        }
        writer.put(UInt8(digest == nil ? 0 : 1))
        if let digest { writer.put(raw: digest.bytes) }
    }

    /// Takes nothing on trust: everything read here may come from an enemy.
    init(decoding reader: inout ByteReader) throws(ContainerError) {
        guard let kind = Kind(rawValue: try reader.integer(UInt8.self)) else {
            throw ContainerError("a tree's description holds an unknown type of file")
        }
        self.kind = kind
        path = try reader.string(atMost: Self.longestPath)
        try Self.check(path, allowingRoot: true)
        mode = try reader.integer(UInt32.self)
        uid = try reader.integer(UInt32.self)
        gid = try reader.integer(UInt32.self)
        size = try reader.integer(UInt64.self)
        allocated = try reader.integer(UInt64.self)
        modified = Timestamp(
            seconds: try reader.integer(Int64.self), nanoseconds: try reader.integer(Int64.self))
        device = try reader.integer(UInt64.self)
        target = try reader.string(atMost: Self.longestPath)
        if try reader.integer(UInt8.self) != 0 {
            let path = try reader.string(atMost: Self.longestPath)
            try Self.check(path)
            linkedTo = path
        }
        let count = try reader.integer(UInt32.self)
        for _ in 0..<count {
            let attribute = Attribute(
                name: try reader.string(atMost: 255), value: try reader.string(atMost: 65536))
            guard !attribute.name.isEmpty, !attribute.name.contains(0) else {
                throw ContainerError("\(text(path)): an extended attribute without a usable name")
            }
            attributes.append(attribute)
        }
        if try reader.integer(UInt8.self) != 0 { digest = Digest(try reader.raw(Digest.size)) }
        guard mode <= 0o7777, (0..<1_000_000_000).contains(modified.nanoseconds), size <= UInt64(Int64.max),
            kind == .symbolicLink ? !target.isEmpty && !target.contains(0) : target.isEmpty,
            !path.isEmpty || kind == .directory, kind != .directory || linkedTo == nil
        else { throw ContainerError("\(text(path)): its description is not valid") }
    }
}

/// A tree's digest: over its manifest, so over everything that travels.
extension Digest {
    init(ofTree entries: [FileEntry]) {
        var hasher = Hasher()
        for var entry in entries {
            // How much space a file takes is the file system's affair.
            entry.allocated = 0
            if entry.kind == .directory { entry.size = 0 }
            var writer = ByteWriter()
            entry.encode(into: &writer)
            hasher.update(writer.bytes)
        }
        self = hasher.finish()
    }
}

// Which file something is, whatever it is called.
import Glibc

/// The file system and the inode: they tell a file from every other for as long as somebody holds it open, since its
/// inode number is not given out again before. Compare two identities only while both files are held: an open
/// descriptor, a mapping or a working directory of the process does that.
public struct FileIdentity: Hashable, Sendable {
    public var device, inode: UInt64

    public init(device: UInt64, inode: UInt64) { (self.device, self.inode) = (device, inode) }
    public init(_ status: stat) { (device, inode) = (UInt64(status.st_dev), UInt64(status.st_ino)) }

    /// What a path leads to in the root directory of a process; nil: nothing. A path that the kernel gave for an open
    /// file has no symbolic link in it, so none is followed at its end: another process may just have put one there.
    public static func status(of path: String, inRootOf pid: Int32) -> stat? {
        self.status(of: [UInt8](path.utf8), inRootOf: pid)
    }

    /// The same of a path that need not be text.
    public static func status(of path: [UInt8], inRootOf pid: Int32) -> stat? {
        var status = stat()
        let whole = ([UInt8]("/proc/\(pid)/root".utf8) + path + [0]).map { CChar(bitPattern: $0) }
        return lstat(whole, &status) == 0 ? status : nil
    }
}

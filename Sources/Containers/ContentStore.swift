// File contents a host has seen, by digest: a container that comes back, or a second one of the same image, sends
// little.
import CLinux
import Glibc
import LinuxKernel
import Synchronization

/// A folder of contents named by their SHA-256. Files are copied out of it (sharing blocks where the file system can),
/// never linked: a container must not be able to change what others get. Any thread, and several processes, may use it.
public final class ContentStore: Sendable {
    private let folder: String
    private let digests: DigestCache
    private static let counter = Atomic<Int>(0)

    /// - Parameter digests: spares the check of contents that have not changed since they came.
    public init(folder: String, digests: DigestCache) throws(KernelError) {
        self.folder = folder
        self.digests = digests
        try Folder.create(folder)
    }

    private func path(_ digest: Digest) -> String { "\(folder)/\(digest)" }

    /// The content, checked; nil if the store does not hold it. One that was damaged is removed.
    func open(_ digest: Digest, whileWorking: () throws -> Void = {}) throws -> FileDescriptor? {
        guard let file = try? FileDescriptor(opening: path(digest), O_RDONLY | O_NOFOLLOW) else { return nil }
        if try digests.digest(of: file, name: path(digest), whileWorking: whileWorking).0 == digest { return file }
        unlink(path(digest))
        return nil
    }

    /// A file to receive a content into; `keep` gives it its name, otherwise it vanishes.
    func newFile() throws(KernelError) -> (file: FileDescriptor, path: String) {
        let path = "\(folder)/new-\(getpid())-\(Self.counter.add(1, ordering: .relaxed).newValue)"
        unlink(path)
        return (try FileDescriptor(opening: path, O_RDWR | O_CREAT | O_EXCL), path)
    }

    func keep(_ path: String, as digest: Digest) throws(KernelError) {
        try checkC(rename(path, self.path(digest)), "keeping content \(digest)")
    }

    /// Removes the contents that were not used for longest, until the store takes at most `bytes`, and what a
    /// receiver that died left.
    public func prune(toBytes bytes: UInt64) throws(KernelError) {
        var files: [(path: String, stamp: Stamp)] = []
        for name in try Folder.names(folder) {
            let path = "\(folder)/\(name)"
            var status = stat()
            guard lstat(path, &status) == 0 else { continue }
            let stamp = Stamp(status)
            if Digest(hexadecimal: name) != nil {
                files.append((path, stamp))
            } else if stamp.modified.seconds + 86400 < Stamp.now().seconds {
                unlink(path)
            }
        }
        var total = files.reduce(0) { $0 + $1.stamp.blocks * 512 }
        for file in files.sorted(by: { $0.stamp.modified < $1.stamp.modified }) where total > bytes {
            unlink(file.path)
            total -= file.stamp.blocks * 512
        }
    }

    /// Notes that a content was used, for `prune`.
    func touch(_ file: FileDescriptor) { futimens(file.number, nil) }
}

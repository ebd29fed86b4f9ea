// What happens to the entries of folders, told by inotify(7).
import CLinux
import Glibc

/// Watches folders. Any thread may call.
public final class FolderEvents: Sendable {
    /// Something that has happened to an entry of a folder, or to the folder itself.
    public struct Event: Sendable {
        /// The number of the folder's watch.
        public let watch: Int32
        /// The entry's; empty: the folder itself.
        public let name: [UInt8]
        private let mask: UInt32

        fileprivate init(_ watch: Int32, _ mask: UInt32, _ name: [UInt8]) {
            (self.watch, self.mask, self.name) = (watch, mask, name)
        }
        /// It was written to.
        public var isWrite: Bool { mask & 0x2 /* IN_MODIFY */ != 0 }
        /// The watch has ended: its folder is gone, or `remove` was called.
        public var isEnd: Bool { mask & 0x8000 /* IN_IGNORED */ != 0 }
        /// Events before this one were lost, since too many waited; it belongs to no folder.
        public var isOverflow: Bool { mask & 0x4000 /* IN_Q_OVERFLOW */ != 0 }
    }

    private let descriptor: FileDescriptor

    public init() throws(KernelError) {
        descriptor = FileDescriptor(owning: try check(clx_watch_new(), "making an inotify instance"))
    }

    /// Watches the folder at a path from now on.
    ///
    /// - Returns: the number of its watch, which the kernel never uses twice.
    public func add(_ path: String, _ what: @autoclosure () -> String) throws(KernelError) -> Int32 {
        try check(clx_watch_add(descriptor.number, path), "watching \(what())")
    }

    /// Ends a watch, if its folder has not.
    public func remove(_ watch: Int32) { _ = clx_watch_remove(descriptor.number, watch) }

    /// Hands over what has happened between the last call and this one. What happens meanwhile is for the next: a busy
    /// program makes events faster than a busy host reads them.
    public func take(_ body: (Event) -> Void) throws(KernelError) {
        var left = Int(try check(clx_bytes_to_read(descriptor.number), "counting events of files"))
        if left == 0 { return }
        var failure: KernelError?
        withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 8) { buffer in
            while left > 0 {
                let count = read(descriptor.number, buffer.baseAddress!, buffer.count)
                if count < 0, errno == EINTR { continue }
                if count < 0, errno != EAGAIN { failure = KernelError("reading events of files", Errno(errno)) }
                if count <= 0 { return }
                left -= count
                var offset = 0
                while offset + 16 <= count {
                    // struct inotify_event: watch 4, mask 4, cookie 4, length 4, then the name, filled up with zeros.
                    // SAFETY: the kernel filled `count` bytes with whole events.
                    let watch = buffer.loadUnaligned(fromByteOffset: offset, as: Int32.self)
                    let mask = buffer.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self)
                    let length = Int(buffer.loadUnaligned(fromByteOffset: offset + 12, as: UInt32.self))
                    let name = buffer[(offset + 16)..<(offset + 16 + length)].prefix { $0 != 0 }
                    offset += 16 + length
                    body(Event(watch, mask, Array(name)))
                }
            }
        }
        if let failure { throw failure }
    }
}

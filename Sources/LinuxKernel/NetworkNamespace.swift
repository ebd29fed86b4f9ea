// Network namespaces: entering one on a thread of its own, keeping one by a bind-mounted file.
//
// setns(2) changes the calling thread only, and a thread of Swift's pool must never come back changed; so every visit
// happens on a fresh pthread that ends with it. Sockets opened there stay in that namespace and work from anywhere.
import CLinux
import Glibc

/// A network namespace, held open.
public final class NetworkNamespace: Sendable {
    public let descriptor: FileDescriptor

    /// Takes over a descriptor of a namespace.
    public init(owning descriptor: FileDescriptor) { self.descriptor = descriptor }
    /// Opens the namespace behind a file: /proc/PID/ns/net or a bind mount of one.
    public init(opening path: String) throws(KernelError) {
        descriptor = try FileDescriptor(opening: path, O_RDONLY)
    }
    /// The namespace of the calling thread.
    public static func ofThisThread() throws(KernelError) -> NetworkNamespace {
        try NetworkNamespace(opening: "/proc/thread-self/ns/net")
    }

    /// Runs `body` on a fresh thread inside the namespace and waits for it.
    public func run<T>(_ body: () throws(KernelError) -> T) throws(KernelError) -> T {
        let number = descriptor.number
        return try OwnThread.run("apus-netns") { () throws(KernelError) -> T in
            try check(clx_setns(number, CLONE_NEWNET), "entering a network namespace")
            return try body()
        }.get()
    }

    /// Makes a new namespace that lives as long as this object or a socket or process in it.
    public static func create() throws(KernelError) -> NetworkNamespace {
        try OwnThread.run("apus-netns") { () throws(KernelError) -> NetworkNamespace in
            try check(clx_unshare(CLONE_NEWNET), "making a network namespace")
            return try ofThisThread()
        }.get()
    }

    /// Makes a new namespace and mounts it on a file at `path`, which keeps it alive (as `ip netns add` does).
    ///
    /// - Parameter connectionBuckets: of a table of its own for TCP connections; nil, or before Linux 6.1: it shares the
    ///   host's, which makes listing them slow.
    /// - Throws: `.exists` if the file is there already.
    public static func create(at path: String, connectionBuckets: Int? = nil) throws(KernelError) -> NetworkNamespace {
        let file = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        try checkC(file, "creating \(path)")
        close(file)
        do throws(KernelError) {
            return try OwnThread.run("apus-netns") { () throws(KernelError) -> NetworkNamespace in
                try check(clx_unshare(CLONE_NEWNET), "making a network namespace")
                if let connectionBuckets, try setChildBuckets(connectionBuckets) {
                    try check(clx_unshare(CLONE_NEWNET), "making a network namespace")
                }
                let own = "/proc/self/task/\(clx_gettid())/ns/net"
                try check(clx_mount(own, path, "", UInt(MS_BIND), nil), "mounting \(own) on \(path)")
                return try NetworkNamespace(opening: path)
            }.get()
        } catch {
            unlink(path)
            throw error
        }
    }

    /// Gives namespaces that this thread makes from its present one tables of their own; false: the kernel has none.
    private static func setChildBuckets(_ count: Int) throws(KernelError) -> Bool {
        do throws(KernelError) {
            try SmallFile.write("\(count)", to: "/proc/sys/net/ipv4/tcp_child_ehash_entries")
            return true
        } catch  where error.errno == .noEntry {
            return false
        }
    }

    /// Undoes `create(at:)`: the namespace ends with its last process. Nothing happens if it is gone already.
    public static func remove(at path: String) throws(KernelError) {
        let result = clx_umount(path, Int32(MNT_DETACH))
        // EINVAL: a plain file, left by a crash between creating and mounting.
        if result != -ENOENT && result != -EINVAL { try check(result, "unmounting \(path)") }
        if unlink(path) == -1 && Glibc.errno != ENOENT { try checkC(-1, "removing \(path)") }
    }

    /// Writes a file below /proc/sys/net as this namespace sees it.
    public func setSysctl(_ name: String, _ value: String) throws(KernelError) {
        try run { () throws(KernelError) in
            try SmallFile.write(value, to: "/proc/sys/" + name)
        }
    }
}

/// include/uapi/linux/sched.h.
private let CLONE_NEWNET: Int32 = 0x4000_0000

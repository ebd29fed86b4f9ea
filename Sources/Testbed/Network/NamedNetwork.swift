// Named network namespaces, as ip-netns(8) knows them: bind mounts under /run/netns.
import CLinux
import Glibc
import LinuxKernel

/// A network namespace with a name that `ip netns` lists.
public struct NamedNetwork: Sendable, Hashable {
    public static let folder = "/run/netns"
    public let name: String
    public var path: String { "\(Self.folder)/\(name)" }
    public var exists: Bool { fileExists(path) }

    public init(_ name: String) { self.name = name }

    /// The namespace's descriptor, for setns(2).
    public func open() throws(KernelError) -> FileDescriptor { try FileDescriptor(opening: path, O_RDONLY) }

    /// Makes the namespace and binds it to its name. IPv6 is off before any link
    /// exists (no duplicate address detection, no router solicitations in a measurement), `lo` is not up yet.
    func create() throws {
        try Self.prepareFolder()
        let fresh = try NetworkNamespace.create(at: path)
        for group in ["all", "default"] where fileExists("/proc/sys/net/ipv6") {
            try fresh.setSysctl("net/ipv6/conf/\(group)/disable_ipv6", "1")
        }
        // The default maximum stops a 20 ms link at about 600 Mbit/s.
        try fresh.setSysctl("net/ipv4/tcp_rmem", "4096 131072 33554432")
        try fresh.setSysctl("net/ipv4/tcp_wmem", "4096 65536 33554432")
    }

    /// Makes the folder a shared mount of its own, as `ip netns add` does when it is first called. Were that to come
    /// after our names, it would mount the folder over them, and nobody could take them away any more.
    private static func prepareFolder() throws {
        try makeFolders(folder)
        func share() -> Int32 { clx_mount("", folder, nil, UInt(MS_SHARED | MS_REC), nil) }
        if share() == 0 { return }
        // EINVAL: not a mount.
        try check(clx_mount(folder, folder, nil, UInt(MS_BIND | MS_REC), nil), "mounting \(folder) on itself")
        try check(share(), "sharing \(folder)")
    }

    /// Takes the name away; the namespace ends with its last holder. What is not there is no error.
    func delete() {
        while clx_umount(path, 2 /* MNT_DETACH */) == 0 {}
        unlink(path)
        // The last name takes the folder's mount along; `ip netns add` makes it again.
        if fileNames(Self.folder).isEmpty { _ = clx_umount(Self.folder, 0) }
    }

    /// Runs a closure on a thread of its own inside the namespace.
    public func run<T>(_ body: () throws -> T) throws -> T {
        let descriptor = try open()
        return try OwnThread.run("in-\(name)") {
            try check(clx_setns(descriptor.number, CLONE_NEWNET), "entering network namespace \(name)")
            return try body()
        }.get()
    }

    /// Steers received packets of every link to one CPU: without it veth reorders under load, and a TCP sender
    /// retransmits without need.
    func steerReceiving() throws {
        let descriptor = try open()
        try OwnThread.run("rps") {
            // sysfs shows the links of the namespace in which it was mounted, hence a mount of our own that ends with
            // this thread.
            try check(clx_unshare(CLONE_NEWNS), "unsharing mounts")
            try check(clx_mount("none", "/", nil, UInt(MS_REC | MS_PRIVATE), nil), "making mounts private")
            try check(clx_setns(descriptor.number, CLONE_NEWNET), "entering network namespace \(name)")
            try check(clx_mount("sysfs", "/sys", "sysfs", 0, nil), "mounting sysfs")
            for link in fileNames("/sys/class/net") where link != "lo" && link != "br0" {
                for queue in fileNames("/sys/class/net/\(link)/queues") where queue.hasPrefix("rx-") {
                    try SmallFile.write("1", to: "/sys/class/net/\(link)/queues/\(queue)/rps_cpus")
                }
            }
        }.get()
    }

    /// PIDs of the processes whose network this is.
    func processes() -> [Int32] {
        var own = stat()
        guard stat(path, &own) == 0 else { return [] }
        return ProcessTable.all().filter { pid in
            var other = stat()
            return stat("/proc/\(pid)/ns/net", &other) == 0 && other.st_ino == own.st_ino && other.st_dev == own.st_dev
        }
    }
}

private let CLONE_NEWNET: Int32 = 0x4000_0000
private let CLONE_NEWNS: Int32 = 0x0002_0000
private let MS_REC = 16384
private let MS_PRIVATE = 1 << 18
private let MS_SHARED = 1 << 20
private let MS_BIND = 4096

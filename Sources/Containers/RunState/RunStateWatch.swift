// Whether a container's run state has changed since the last look: cheap enough for the freeze.
import CLinux
import Glibc
import LinuxKernel

/// Notices what changes of a container's mounts, names, limits, network and sysctls from its making on.
public final class RunStateWatch {
    private let pid: Int32
    private let names: HostNames
    /// Files of /proc whose poll(2) tells of changes: of the container's mounts, and of names in any UTS namespace.
    private let mounts: FileDescriptor
    private let named: [FileDescriptor]
    /// Subscribed to the container's interfaces, addresses, routes and rules.
    private let network: NetlinkSocket
    private let sysctls: SysctlWatch
    private let limits: [(name: String, file: FileDescriptor, value: [UInt8])]

    public init(pid: Int32, cgroup: String) throws(KernelError) {
        self.pid = pid
        mounts = try FileDescriptor(opening: "/proc/\(pid)/mountinfo", O_RDONLY)
        named = [
            try FileDescriptor(opening: "/proc/sys/kernel/hostname", O_RDONLY),
            try FileDescriptor(opening: "/proc/sys/kernel/domainname", O_RDONLY),
        ]
        let spaces = OwnSpaces(pid: pid)
        (names, network, sysctls) = try ContainerThread.run(in: pid) { () throws(KernelError) in
            (
                HostNames(), try NetlinkSocket(notifiedOf: [1, 5, 7, 8, 9, 11, 19]),
                try SysctlWatch(pid: pid, spaces)
            )
        }
        var limits: [(String, FileDescriptor, [UInt8])] = []
        let known = try CgroupLimits(pid: pid, cgroup: cgroup).values.keys
        for folder in try CgroupLimits.folders(pid, cgroup) {
            for name in known.sorted() where access("\(folder)/\(name)", F_OK) == 0 {
                let file = try FileDescriptor(opening: "\(folder)/\(name)", O_RDONLY)
                limits.append((name, file, Self.content(name, file)))
            }
        }
        self.limits = limits
    }

    /// What has changed; nil: nothing.
    public func change() -> String? {
        if isSignalled(mounts) { return "its mounts have changed" }
        if named.contains(where: isSignalled), isRenamed { return "its host name has changed" }
        var byte: UInt8 = 0
        if recv(network.descriptor.number, &byte, 1, Int32(MSG_DONTWAIT)) > 0 {
            return "its addresses, routes or interfaces have changed"
        }
        if let path = sysctls.change() { return "its sysctl \(path) has been set" }
        return limits.first { Self.content($0.name, $0.file) != $0.value }.map { "its cgroup's \($0.name) has changed" }
    }

    private var isRenamed: Bool {
        // Who cannot look must not say that nothing is new.
        ((try? ContainerThread.run(in: pid) { () throws(KernelError) in HostNames() }).map { $0 != names }) ?? true
    }

    private func isSignalled(_ file: FileDescriptor) -> Bool {
        var request = pollfd(fd: file.number, events: Int16(POLLPRI), revents: 0)
        return poll(&request, 1, 0) > 0 && request.revents & Int16(POLLPRI | POLLERR) != 0
    }

    /// One read(2); a longer content is compared by its beginning.
    private static func content(_ name: String, _ file: FileDescriptor) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 512) { buffer, count in
            let n = clx_pread(file.number, buffer.baseAddress, 512, 0)
            // Whatever can no longer be read is not what it was.
            count = max(0, Int(n))
            if name == "memory.oom_control" {
                // Its further lines count.
                count = buffer[..<count].firstIndex(of: UInt8(ascii: "\n")) ?? count
            }
        }
    }
}

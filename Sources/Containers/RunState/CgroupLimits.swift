// The limits of a container's cgroup, which its operator may change while it runs (`runc update`).
import CLinux
import Glibc
import LinuxKernel

struct CgroupLimits: Codable, Sendable, Equatable {
    /// What the container's cgroups hold in files that can be written, by the files' names: each begins with its
    /// controller's.
    var values: [String: String]
    /// Cgroups that were made below.
    var below: [String]

    init(pid: Int32, cgroup: String) throws(KernelError) {
        (values, below) = ([:], [])
        for folder in try Self.folders(pid, cgroup) {
            for name in try Folder.names(folder) {
                var status = stat()
                guard lstat("\(folder)/\(name)", &status) == 0 else { continue }
                if status.st_mode & S_IFMT == S_IFDIR { below.append(name) }
                guard status.st_mode & S_IFMT == S_IFREG, status.st_mode & 0o600 == 0o600, Self.isLimit(name) else {
                    continue
                }
                // Some cannot be read as they are, for want of a device or a feature.
                guard let value = try? SmallFile.text("\(folder)/\(name)") else { continue }
                // Its further lines count.
                values[name] = name == "memory.oom_control" ? String(value.prefix { $0 != "\n" }) : value
            }
        }
        below = Set(below).sorted()
    }

    /// The container's own folders in every hierarchy.
    static func folders(_ pid: Int32, _ cgroup: String) throws(KernelError) -> [String] {
        let mounts = try CgroupMount.all()
        return try SmallFile.text("/proc/\(pid)/cgroup").split(separator: "\n").compactMap { line in
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3, fields[2] == cgroup,
                let mount = mounts.first(where: { $0.matches(controllers: fields[1]) })
            else { return nil }
            return mount.path + cgroup
        }
    }

    /// Not what counts, acts or watches.
    private static func isLimit(_ name: String) -> Bool {
        if name.hasPrefix("cgroup.") || name.hasPrefix("freezer.") { return false }
        if ["tasks", "notify_on_release", "release_agent"].contains(name) { return false }
        return !["usage_in_bytes", "failcnt", "pressure", "peak", "reclaim", "usage", "ifpriomap", "nice"]
            .contains { name.hasSuffix($0) }
    }

    /// Those that a destination sets again.
    static let carried: Set = [
        "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness",
        "pids.max", "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.idle",
        "cpuset.cpus",
        "cpuset.mems", "memory.max", "memory.high", "memory.low", "memory.min", "memory.swap.max", "memory.swap.high",
        "memory.oom.group", "cpu.max", "cpu.max.burst", "cpu.weight", "io.weight", "blkio.weight", "blkio.bfq.weight",
    ]

    func obstacles(since made: CgroupLimits) -> [RunStateObstacle] {
        Set(values.keys).union(made.values.keys).sorted().compactMap { name in
            if Self.carried.contains(name) || values[name] == made.values[name] { return nil }
            let words = "\(values[name] ?? "nothing") instead of \(made.values[name] ?? "nothing")"
            return .init("cgroup's \(name)", "set at run time (\(words)), not carried yet")
        } + below.map { .init("cgroup \($0)", "made below the container's own, not carried yet") }
    }

    /// - Throws: `ContainerError` for what cannot be set here.
    static func set(_ values: [String: String], pid: Int32, cgroup: String) throws {
        if values.isEmpty { return }
        let folders = try folders(pid, cgroup)
        var failures: [String] = []
        // Some must not be below others: what fails at first may do after them.
        for _ in 0..<3 {
            failures = []
            for (name, value) in values.sorted(by: { $0.key < $1.key }) {
                guard carried.contains(name), let folder = folders.first(where: { access("\($0)/\(name)", F_OK) == 0 })
                else {
                    failures.append("this host's cgroups have no \(name)")
                    continue
                }
                do throws(KernelError) { try SmallFile.write(value, to: "\(folder)/\(name)") } catch {
                    failures.append("cgroup's \(name), \(value) on the source: \(error.errno)")
                }
            }
            if failures.isEmpty { return }
        }
        throw ContainerError(failures.joined(separator: "; "))
    }
}

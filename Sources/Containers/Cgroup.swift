// A container's cgroup: freezing it with one write, and removing what is left of it.
import CLinux
import Glibc
import LinuxKernel

/// Where a container's cgroups are on this host: what another process needs to freeze, thaw or remove them.
public struct CgroupPlace: Codable, Sendable, Equatable {
    /// Folder in the unified hierarchy, if the container has one of its own there.
    public var unified: String?
    /// Folder in the v1 freezer hierarchy, likewise.
    public var freezer: String?
    /// All folders of the container, in every hierarchy.
    public var folders: [String]

    /// The cgroup of a process, which must be called `cgroup` ("/parent/name"), as the runtime was told: a cgroup of
    /// any other name holds more than the container.
    public init(pid: Int32, cgroup: String) throws {
        let mounts = try CgroupMount.all()
        (unified, freezer, folders) = (nil, nil, [])
        let lines = try SmallFile.text("/proc/\(pid)/cgroup").split(separator: "\n")
        for line in lines {
            // "4:memory:/path"; "0::/path" is the unified hierarchy.
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3, fields[2] == cgroup,
                let mount = mounts.first(where: { $0.matches(controllers: fields[1]) })
            else { continue }
            let folder = mount.path + cgroup
            guard access(folder, F_OK) == 0 else { continue }
            folders.append(folder)
            if fields[1].isEmpty { unified = folder }
            if fields[1].split(separator: ",").contains("freezer") { freezer = folder }
        }
        if unified == nil && freezer == nil {
            let found = lines.isEmpty ? "none" : lines.joined(separator: ", ")
            throw ContainerError(
                "pid \(pid) is in no cgroup \(cgroup) that can be frozen (but in \(found)): Apus needs cgroup v2, or v1 "
                    + "with its freezer")
        }
    }

    /// The processes in a cgroup of any hierarchy, in our PID namespace; none if there is no such cgroup.
    public static func processes(of cgroup: String) -> [Int32] {
        let mounts = (try? CgroupMount.all()) ?? []
        let texts = mounts.compactMap { try? SmallFile.text($0.path + cgroup + "/cgroup.procs") }
        return Set(texts.flatMap { $0.split(separator: "\n") }.compactMap { Int32($0) }).sorted()
    }

    /// Is it frozen in one of its hierarchies, or being frozen, by whomever?
    public var isFrozen: Bool {
        // A file that is gone went with the cgroup.
        let events = unified.flatMap { try? SmallFile.text($0 + "/cgroup.events") } ?? ""
        let state = freezer.flatMap { try? SmallFile.text($0 + "/freezer.state") } ?? ""
        return events.contains("frozen 1") || state.hasPrefix("F")
    }
}

/// A mounted hierarchy.
struct CgroupMount {
    let path: String
    let isUnified: Bool
    let options: [Substring]

    func matches(controllers: Substring) -> Bool {
        if controllers.isEmpty { return isUnified }
        return !isUnified && controllers.split(separator: ",").allSatisfy { options.contains($0) }
    }

    static func all() throws(KernelError) -> [CgroupMount] {
        try SmallFile.text("/proc/self/mountinfo").split(separator: "\n").compactMap { line in
            // ID parent major:minor root mountpoint options [tags...] - type source superoptions
            guard let dash = line.firstRange(of: " - ") else { return nil }
            let before = line[..<dash.lowerBound].split(separator: " ")
            let after = line[dash.upperBound...].split(separator: " ")
            guard before.count >= 6, after.count >= 3, after[0] == "cgroup" || after[0] == "cgroup2" else { return nil }
            return CgroupMount(
                path: String(before[4]), isUnified: after[0] == "cgroup2", options: after[2].split(separator: ","))
        }
    }
}

/// An open cgroup: freezing is one write to a descriptor that is open already.
///
/// On cgroup v2 `cgroup.freeze`, else the v1 freezer. In a hybrid system the unified one is taken if the runtime put
/// the container there too.
public final class Cgroup: Sendable {
    public let place: CgroupPlace
    /// cgroup.freeze (v2) or freezer.state (v1).
    private let control: FileDescriptor
    /// cgroup.events (v2).
    private let events: FileDescriptor?
    /// cgroup.procs.
    private let members: FileDescriptor

    public init(_ place: CgroupPlace) throws(KernelError) {
        self.place = place
        if let folder = place.unified {
            control = try FileDescriptor(opening: folder + "/cgroup.freeze", O_RDWR)
            events = try FileDescriptor(opening: folder + "/cgroup.events", O_RDONLY)
            members = try FileDescriptor(opening: folder + "/cgroup.procs", O_RDONLY)
        } else if let folder = place.freezer {
            control = try FileDescriptor(opening: folder + "/freezer.state", O_RDWR)
            events = nil
            members = try FileDescriptor(opening: folder + "/cgroup.procs", O_RDONLY)
        } else {
            throw KernelError("opening a cgroup's freezer: it has none", .noEntry)
        }
    }

    private var name: String { place.unified ?? place.freezer ?? "?" }

    /// Asks for the freeze without waiting for it. Returns at once; the tasks stop a little later.
    public func requestFreeze() throws(KernelError) {
        try write(events != nil ? "1" : "FROZEN", "freezing cgroup \(name)")
    }

    /// Freezes it and returns when every task is frozen.
    ///
    /// Must not be called from inside the cgroup.
    public func freeze(timeLimit: Duration = .seconds(5)) throws(KernelError) {
        try requestFreeze()
        let end = ContinuousClock.now + timeLimit
        while try !isFrozen() {
            if ContinuousClock.now > end {
                // Tasks that hang in the kernel cannot be frozen; those that were stopped run on.
                try? thaw()
                throw KernelError(
                    "freezing cgroup \(name): not all of its tasks stopped within \(timeLimit)", .timedOut)
            }
            if let events {
                // A change of cgroup.events is exceptional data; the limit covers one that came before the poll.
                var request = pollfd(fd: events.number, events: Int16(POLLPRI), revents: 0)
                poll(&request, 1, 1)
            } else {
                // The v1 freezer goes on freezing while its state is read.
                sched_yield()
            }
        }
    }

    /// Lets its tasks run on. No error if it was not frozen.
    public func thaw() throws(KernelError) {
        try write(events != nil ? "0" : "THAWED", "thawing cgroup \(name)")
    }

    /// Whether every task is frozen (false while it is still freezing).
    public func isFrozen() throws(KernelError) -> Bool {
        if let events { return try read(events).contains("frozen 1") }
        return try read(control).hasPrefix("FROZEN")
    }

    /// The processes inside, in our PID namespace.
    public func processes() throws(KernelError) -> [Int32] {
        try read(members).split(separator: "\n").compactMap { Int32($0) }
    }

    private func write(_ text: String, _ operation: String) throws(KernelError) {
        try check(clx_pwrite(control.number, text, text.utf8.count, 0), operation)
    }

    private func read(_ file: FileDescriptor) throws(KernelError) -> String {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = try check(
                clx_pread(file.number, &chunk, chunk.count, UInt64(bytes.count)), "reading cgroup \(name)")
            if count == 0 { return String(decoding: bytes, as: UTF8.self) }
            bytes += chunk[..<count]
        }
    }
}

extension Cgroup {
    /// Whether this process sees any cgroups.
    public static func isMounted() -> Bool { (try? CgroupMount.all())?.isEmpty == false }

    /// Kills whatever is in a cgroup, and waits until it is gone, for two seconds at most.
    public static func killProcesses(in cgroup: String) throws(KernelError) {
        precondition(cgroup.hasPrefix("/") && cgroup.count > 1, "never the root cgroup")
        let files = try CgroupMount.all().map { $0.path + cgroup + "/cgroup.procs" }.filter { access($0, F_OK) == 0 }
        for _ in 0..<400 {
            let members = files.compactMap { try? SmallFile.text($0) }.joined(separator: "\n").split(separator: "\n")
            if members.isEmpty { return }
            for pid in Set(members.compactMap { Int32($0) }) { kill(pid, SIGKILL) }
            usleep(5000)
        }
        throw KernelError("waiting for the end of what is in cgroup \(cgroup)", .timedOut)
    }

    /// Removes a cgroup and the empty ones below it from every hierarchy: "/apus-edge-a/web", or the parent
    /// "/apus-edge-a" when no container is left. Those that still hold processes stay.
    ///
    /// - Returns: the folders that could not be removed.
    @discardableResult
    public static func removeEmpty(_ cgroup: String) throws(KernelError) -> [String] {
        precondition(cgroup.hasPrefix("/") && cgroup.count > 1, "never the root cgroup")
        var left: [String] = []
        for mount in try CgroupMount.all() {
            let folder = mount.path + cgroup
            if access(folder, F_OK) == 0 && !removeFolder(folder) { left.append(folder) }
        }
        return left
    }

    /// A cgroup that its last process has just left may be busy for a moment.
    private static func removeFolder(_ path: String) -> Bool {
        for name in (try? Folder.names(path)) ?? [] {
            var status = stat()
            if lstat("\(path)/\(name)", &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
                _ = removeFolder("\(path)/\(name)")
            }
        }
        for _ in 0..<50 {
            if rmdir(path) == 0 || errno == ENOENT { return true }
            if errno != EBUSY { return false }
            if let members = try? SmallFile.read(path + "/cgroup.procs"), !members.isEmpty { return false }
            usleep(2000)
        }
        return false
    }
}

// What is set of a container while it runs, past its configuration: what of it travels, and what keeps it from moving.
import FoundationEssentials
import Glibc
import LinuxKernel

/// What surrounds a container's processes and can be changed while they run: mounts, names, limits, network, sysctls.
///
/// What its configuration alone makes of them is not computed but looked at: the runtime's `create` notes it before the
/// program starts (`note`), and whatever differs from that later was set at run time.
public struct RunState: Codable, Sendable, Equatable {
    var names: HostNames
    var mounts: Mounts
    var limits: CgroupLimits
    var network: NetworkState
    var sysctls: Sysctls

    /// Reads it of a running container.
    ///
    /// - Parameters:
    ///   - cgroup: the container's own, "/parent/name".
    ///   - before: an earlier state of it, which makes the look a shorter one.
    init(pid: Int32, cgroup: String, before: RunState? = nil) throws(KernelError) {
        mounts = try Mounts(pid: pid)
        limits = try CgroupLimits(pid: pid, cgroup: cgroup)
        let spaces = OwnSpaces(pid: pid)
        (names, network, sysctls) = try ContainerThread.run(in: pid) { () throws(KernelError) in
            (HostNames(), try NetworkState(), try Sysctls(of: spaces, before: before?.sysctls))
        }
    }

    /// Notes what the runtime has just made; in the bundle, so that it goes with the container.
    static func note(pid: Int32, cgroup: String, inBundle folder: String) throws {
        try ContainerDirectory.replace(
            path(inBundle: folder), with: [UInt8](try JSONEncoder().encode(RunState(pid: pid, cgroup: cgroup))))
    }

    fileprivate static func path(inBundle folder: String) -> String { folder + "/made.json" }
}

/// What the runtime's `create` made of a container, as it was noted then.
public struct MadeRunState: Sendable {
    /// Nil: nobody noted it.
    private let made: RunState?

    public init(bundle: String) throws {
        let path = RunState.path(inBundle: bundle)
        made =
            access(path, F_OK) == 0
            ? try JSONDecoder().decode(RunState.self, from: Data(try SmallFile.read(path))) : nil
    }

    /// What was set since the container was made.
    ///
    /// - Parameters:
    ///   - spec: its network as it travels; nil: it has none of its own.
    ///   - sent: what a destination has set already, which may be as it was made again.
    public func changes(
        pid: Int32, cgroup: String, spec: NetworkSpec?, sent: CarriedRunState = CarriedRunState()
    ) throws -> RunStateChanges {
        guard let made else {
            return RunStateChanges(
                obstacles: [.init("container", "nobody noted what its configuration made of it: start it anew")])
        }
        let now = try RunState(pid: pid, cgroup: cgroup, before: made)
        var changes = RunStateChanges()
        changes.obstacles += now.mounts.obstacles(since: made.mounts)
        changes.obstacles += now.limits.obstacles(since: made.limits)
        changes.obstacles += now.network.obstacles(since: made.network, spec)
        if now.names != made.names || sent.names != nil { changes.carried.names = now.names }
        changes.carried.limits = now.limits.values.filter {
            CgroupLimits.carried.contains($0.key)
                && (made.limits.values[$0.key] != $0.value || sent.limits[$0.key] != nil)
        }
        changes.carried.sysctls = now.sysctls.values.filter {
            made.sysctls.values[$0.key] != $0.value || sent.sysctls[$0.key] != nil
        }
        return changes
    }
}

/// What was set of a container at run time.
public struct RunStateChanges: Sendable, Equatable {
    public var carried = CarriedRunState()
    public var obstacles: [RunStateObstacle] = []
}

/// Something set at run time that no destination could set again.
public struct RunStateObstacle: Sendable, Equatable, CustomStringConvertible {
    /// "mount /data (tmpfs)".
    public let what: String
    public let why: String
    init(_ what: String, _ why: String) { (self.what, self.why) = (what, why) }
    public var description: String { "\(what): \(why)" }
}

/// What a destination sets of a container after its runtime has made it. Travels as JSON; a destination trusts none of
/// it.
public struct CarriedRunState: Codable, Sendable, Equatable {
    var names: HostNames?
    /// Values of the cgroup's files by their names.
    var limits: [String: String] = [:]
    /// Values by path below /proc/sys.
    var sysctls: [String: String] = [:]

    public init() {}
    public var isEmpty: Bool { self == CarriedRunState() }

    /// Sets all of it on a container that the runtime has made here.
    ///
    /// - Throws: `ContainerError` that names what cannot be set on this host.
    public func apply(pid: Int32, cgroup: String) throws {
        try CgroupLimits.set(limits, pid: pid, cgroup: cgroup)
        if names == nil, sysctls.isEmpty { return }
        let spaces = OwnSpaces(pid: pid)
        if names != nil, !spaces.names {
            throw ContainerError("host name: the container has no UTS namespace of its own")
        }
        try Sysctls.check(sysctls, spaces)
        do throws(KernelError) {
            try ContainerThread.run(in: pid) { () throws(KernelError) in
                try names?.set()
                try Sysctls.set(sysctls)
            }
        } catch { throw ContainerError("what was set at run time cannot be set on this host: \(error)") }
    }
}

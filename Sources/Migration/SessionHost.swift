// What a session knows of its own host, and of the container it moves.
import Containers
import Foundation
import Glibc
import LinuxKernel

/// A host that takes part in migrations.
public struct SessionHost: Sendable {
    public var layout: HostLayout
    public var runtime: any ContainerRuntime
    /// What a container's network is attached to here while it comes from another host or goes there; nil: no container
    /// networks on this host, or none that could move there.
    public var attachment: @Sendable (_ container: String, _ peer: Peer) -> NetworkAttachment?
    /// Where this host's agent listens for sessions, as others reach it: "10.77.0.1:7700".
    public var address: String
    /// The probe of this host's kernel; a guard, which offers and takes nothing, has none.
    public var facts = KernelFacts()
    /// What this host lets containers have that come from others.
    public var allowances = Allowances()
    /// Where a session says what it could not put right, and what else nobody waits to hear.
    public var log: @Sendable (String) -> Void = { words in
        let line = "apus: \(words)\n"
        _ = write(2, line, line.utf8.count)
    }
    /// How guards are started; nil: migrations of this host have none (tests in process).
    public var guarding: GuardCommand?

    public init(
        layout: HostLayout, runtime: any ContainerRuntime, address: String,
        attachment: @escaping @Sendable (_ container: String, _ peer: Peer) -> NetworkAttachment? = { _, _ in nil }
    ) {
        (self.layout, self.runtime, self.address, self.attachment) = (layout, runtime, address, attachment)
    }
    /// A journal with its guard, if guards are started here. The guard is there first: no journal is ever without one.
    func openJournal(_ header: JournalHeader) throws -> (Journal, GuardProcess?) {
        var header = header
        header.describe(self)
        let guardian = try guarding.map { try GuardProcess($0, journal: Journal.path(header, in: journals)) }
        do { return (try Journal(header, in: journals), guardian) } catch {
            // A journal of that name is another session's, and none of this guard's business.
            guardian?.discard()
            throw error
        }
    }
    var name: String { layout.hostName }
    /// The stub's executable on this host.
    var stubPath: String { layout.runFolder + "/stub" }
    /// Folder of the journals.
    public var journals: String { layout.runFolder + "/migrations" }
}

/// The other host of a move, by whatever is known of it.
public struct Peer: Sendable, Hashable {
    /// What it calls itself.
    public var name: String?
    /// Where its agent listens for sessions.
    public var address: PeerAddress?
    public init(name: String? = nil, address: PeerAddress?) { (self.name, self.address) = (name, address) }
}

/// A container's network on one host: what travels, and how it is attached here.
public struct ContainerNetworkRecord: Codable, Sendable, Hashable {
    public var spec: NetworkSpec
    public var attachment: NetworkAttachment
    public init(spec: NetworkSpec, attachment: NetworkAttachment) { (self.spec, self.attachment) = (spec, attachment) }
}

/// A container that runs on this host.
public struct RunningContainer: Codable, Sendable {
    public var name: String
    /// Its first process, in this host's PID namespace.
    public var pid: Int32
    /// Its root file system on this host.
    public var rootfs: String
    public var network: ContainerNetworkRecord?
    public init(name: String, pid: Int32, rootfs: String, network: ContainerNetworkRecord?) {
        (self.name, self.pid, self.rootfs, self.network) = (name, pid, rootfs, network)
    }
}

/// This kernel's boot, and what this process's clocks show besides the kernel's: equal for two hosts that read one
/// clock.
func bootIdentity() throws(KernelError) -> String {
    let boot = try SmallFile.text("/proc/sys/kernel/random/boot_id")
    let offsets = try Clocks.offsets()
    return boot.filter { !$0.isWhitespace } + (offsets == .none ? "" : " \(offsets.monotonic) \(offsets.boottime)")
}

extension WireClocks {
    init(_ clocks: Clocks) {
        self.init()
        (monotonic, boottime) = (clocks.monotonic, clocks.boottime)
    }
    var clocks: Clocks { Clocks(monotonic: monotonic, boottime: boottime) }
}

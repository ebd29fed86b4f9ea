// The workloads by name.

public enum WorkloadKind: String, Codable, Sendable, CaseIterable {
    case dirtier, redis, vehicular, ar
    case ycsbRedis = "ycsb-redis"
    case ycsbMemcached = "ycsb-memcached"
    case distributed

    /// Whether its client is a `KeyValueProbe`.
    public var isKeyValue: Bool { self == .ycsbRedis || self == .ycsbMemcached }

    /// The highest rate that its client can be given, a second; nil: it has none, or a fixed one.
    public var fastestRate: Double? {
        switch self {
        case .dirtier, .redis: nil
        case .vehicular: 100
        case .ar: 240
        case .ycsbRedis, .ycsbMemcached, .distributed: 100_000
        }
    }

    /// What of the programs that Workloads/Makefile builds it needs.
    public var programs: [String] {
        switch self {
        case .dirtier, .vehicular, .ar: [rawValue]
        case .distributed: ["gateway", "worker"]
        case .redis, .ycsbRedis, .ycsbMemcached: []
        }
    }
}

/// What a workload is made with.
public struct WorkloadOptions: Sendable, Hashable {
    public var kind: WorkloadKind
    /// Bytes of state: the dirtier's memory, the values of redis, the vehicles' tracks, what the AR map grows to.
    public var memory: UInt64
    /// dirtier: pages of 4 KiB written a second; 0: none.
    public var dirtyRate: UInt64
    /// dirtier: percent of the memory that is written again (1...100).
    public var workingSet: Int
    /// dirtier: percent of a page that a write changes (1...100).
    public var share: Int
    /// dirtier: contiguous bytes written at once (4 KiB...1 MiB, whole pages).
    public var writeSize: UInt64 = 4096
    /// dirtier: how the rate changes within a period (seconds, 0.01...3600).
    public var profile = DirtyProfile.constant
    public var profilePeriod = 1.0
    /// Key-value stores: what is asked for.
    public var mix = KeyValueMix.a
    /// Which pages the dirtier writes (nil: uniform), and which keys are asked for (nil: zipf).
    public var distribution: AccessDistribution?
    /// vehicular: how many vehicles report (1...10,000).
    public var vehicles = 50
    /// vehicular: reports a second of each (1...100), nil: 20. ar: frames a second (1...240), nil: 90.
    /// Key-value stores and distributed: requests a second (1...100,000), nil: 1,000.
    public var rate: Double?
    /// vehicular, ar: how reports and poses travel; mixed: most vehicles use datagrams, the AR device too.
    public var transport = Transport.mixed
    /// vehicular, ar: milliseconds after which an answer is late.
    public var deadline = 20.0

    public init(kind: WorkloadKind, memory: UInt64, dirtyRate: UInt64 = 0, workingSet: Int = 100, share: Int = 100) {
        (self.kind, self.memory, self.dirtyRate) = (kind, memory, dirtyRate)
        (self.workingSet, self.share) = (workingSet, share)
    }
}

/// Where a workload stands among others of the same testbed, and who its client is.
struct WorkloadPlace {
    /// From 0: several of a kind have names and addresses of their own.
    var index: Int
    var topology: Topology
    /// The namespace of the client; nil: this process's own.
    var client: NamedNetwork?
    /// The folder in which bundles are made.
    var folder: String
    /// The folder of the programs that Workloads/Makefile builds.
    var programs: String

    /// A container's name: "redis", then "redis-2".
    func name(_ kind: String) -> String { index == 0 ? kind : "\(kind)-\(index + 1)" }
    /// A container's address among the clients, and its link-layer address.
    ///
    /// - Parameter part: from 0, for workloads of several containers (at most 8).
    func address(part: Int = 0) -> (ip: String, mac: String) {
        let byte = 10 + index * 8 + part
        let ip = "\(topology.containerNetwork).\(byte)"
        // Networks that meet on one line have different ones.
        let bytes = ip.split(separator: ".").map { String(UInt16($0)! | 0x100, radix: 16).dropFirst() }
        return (ip, "02:42:" + bytes.joined(separator: ":"))
    }
}

extension Testbed {
    /// A workload for this testbed.
    ///
    /// - Parameters:
    ///   - index: from 0 to 10; several workloads of a testbed have different ones.
    ///   - client: where its client runs; nil: the user device. With real machines it is always this one.
    ///   - programs: the folder in which Workloads/Makefile leaves its programs.
    public func workload(
        _ options: WorkloadOptions, index: Int = 0, client: NamedNetwork? = nil, programs: String
    ) -> any Workload {
        let place = WorkloadPlace(
            index: index, topology: topology,
            client: topology.hasMachines ? nil : client ?? topology.userDevice, folder: folder, programs: programs)
        switch options.kind {
        case .dirtier:
            return Dirtier(
                .init(
                    memory: options.memory, rate: options.dirtyRate, writeSize: options.writeSize,
                    profile: options.profile, profilePeriod: options.profilePeriod, workingSet: options.workingSet,
                    share: options.share, distribution: options.distribution ?? .uniform), place)
        case .redis: return Redis(memory: options.memory, place)
        case .ycsbRedis, .ycsbMemcached:
            var client = KeyValueProbe.Options(bytes: options.memory)
            (client.mix, client.rate) = (options.mix, options.rate ?? 1000)
            client.distribution = options.distribution ?? .zipf
            return KeyValueStore(options.kind == .ycsbRedis ? .redis : .memcached, client, place)
        case .distributed:
            return DistributedApplication(memory: options.memory, rate: options.rate ?? 1000, place)
        case .vehicular:
            return EdgeService(
                Vehicular(
                    .init(
                        memory: options.memory, vehicles: options.vehicles, rate: options.rate ?? 20,
                        transport: options.transport, deadline: options.deadline)), place)
        case .ar:
            return EdgeService(
                AR(
                    .init(
                        memory: options.memory, rate: options.rate ?? 90, transport: options.transport,
                        deadline: options.deadline)), place)
        }
    }
}

// The workloads by name.

public enum WorkloadKind: String, Codable, Sendable, CaseIterable {
    case dirtier, redis
}

/// What a workload is made with.
public struct WorkloadOptions: Sendable, Hashable {
    public var kind: WorkloadKind
    /// Bytes of state: the dirtier's memory, the values of redis.
    public var memory: UInt64
    /// dirtier: pages of 4 KiB written a second; 0: none.
    public var dirtyRate: UInt64
    /// dirtier: percent of the memory that is written again (1...100).
    public var workingSet: Int
    /// dirtier: percent of a page that a write changes (1...100).
    public var share: Int

    public init(kind: WorkloadKind, memory: UInt64, dirtyRate: UInt64 = 0, workingSet: Int = 100, share: Int = 100) {
        (self.kind, self.memory, self.dirtyRate) = (kind, memory, dirtyRate)
        (self.workingSet, self.share) = (workingSet, share)
    }
}

extension Testbed {
    /// A workload for this testbed.
    ///
    /// - Parameter programs: the folder in which Workloads/Makefile leaves its programs.
    public func workload(_ options: WorkloadOptions, programs: String) -> any Workload {
        switch options.kind {
        case .dirtier:
            Dirtier(
                .init(
                    memory: options.memory, rate: options.dirtyRate, workingSet: options.workingSet,
                    share: options.share),
                program: programs + "/dirtier", folder: folder)
        case .redis: Redis(memory: options.memory, topology: topology, folder: folder)
        }
    }
}

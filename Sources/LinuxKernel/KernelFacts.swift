// What an offer tells about the source's kernel and processor, and what a destination makes of it.

/// The facts of a host that decide whether a process can move there.
public struct KernelFacts: Codable, Sendable, Equatable {
    /// "6.18.1-amd64".
    public var release = ""
    /// "x86_64".
    public var architecture = ""
    /// The processor's own name.
    public var processor = ""
    /// The features that the kernel lists in /proc/cpuinfo, sorted.
    public var processorFeatures: [String] = []
    /// Bytes of the register state that the kernel saves (NT_X86_XSTATE, CPUID leaf 0xD).
    public var xsaveSize: UInt32 = 0
    /// XCR0's features: which parts that state has.
    public var xsaveMask: UInt64 = 0
    public var vdso = VDSO(digest: "", layout: [])
    /// "v1", "v2" or "hybrid".
    public var cgroups = ""
    /// Whether page faults can be had as events (perf's page-fault tracepoints).
    public var faultEvents = false
    /// Bytes a new container could use (MemAvailable) when the probe ran.
    public var availableMemory: UInt64 = 0
    /// vm.overcommit_memory.
    public var overcommit = 0
    public var runtime: String?
    /// Names of what is missing though essential (`KernelProbe`): such a host takes and gives nothing.
    public var missing: [String] = []

    public init() {}

    /// Reasons why a process of `source` cannot run here, each in words of its own; empty: none.
    public func reasonsAgainst(taking source: KernelFacts) -> [String] {
        var reasons: [String] = []
        if source.architecture != architecture {
            return ["the source is \(source.architecture) and this host \(architecture)"]
        }
        let lacking = Set(source.processorFeatures).subtracting(processorFeatures).sorted()
        if !lacking.isEmpty {
            reasons.append(
                "this host's processor (\(processor)) lacks \(lacking.joined(separator: ", ")), which programs on the "
                    + "source may have found and use")
        }
        if source.xsaveMask != xsaveMask || source.xsaveSize != xsaveSize {
            reasons.append(
                "the register state differs: \(source.xsaveSize) bytes, parts 0x\(String(source.xsaveMask, radix: 16)) "
                    + "on the source, \(xsaveSize) bytes, parts 0x\(String(xsaveMask, radix: 16)) here")
        }
        if source.vdso != vdso {
            reasons.append(
                "the kernels map different vDSOs (\(source.release) on the source, \(release) here); both hosts need "
                    + "the same kernel build")
        }
        reasons += missing.map { "this host lacks \($0) (`apus doctor` says what to do)" }
        return reasons
    }
}

/// One row of `apus doctor`.
public struct Finding: Codable, Sendable, Equatable {
    public enum State: String, Codable, Sendable { case ok, limited, missing }
    public var name: String
    public var state: State
    /// What was found.
    public var found: String
    /// Why it matters.
    public var why: String
    /// What to do; nil when nothing is to be done.
    public var advice: String?
    /// Whether nothing can be migrated without it.
    public var essential: Bool

    public init(name: String, state: State, found: String, why: String, advice: String?, essential: Bool) {
        self.name = name
        self.state = state
        self.found = found
        self.why = why
        self.advice = advice
        self.essential = essential
    }
}

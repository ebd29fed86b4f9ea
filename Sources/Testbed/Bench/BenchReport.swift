// What the benchmarks found out, as data.
import Glibc
import LinuxKernel
import Migration

/// The content of benchmark.json.
public struct BenchReport: Codable, Sendable {
    public struct Settings: Codable, Sendable {
        public var quick: Bool
        public var repetitions: Int
        public var redisMoves: Int
    }
    public var version = 1
    /// ISO 8601, UTC.
    public var startedAt = ""
    public var machine = Machine.here()
    /// "runc 1.1.5".
    public var runtime = ""
    /// The machine's own word (/proc/loadavg) before anything was started, and at the end.
    public var loadBefore = BenchReport.load()
    public var loadAfter = ""
    public var settings: Settings
    public var cases: [BenchCase] = []
    public var passed = false
    public var seconds = 0.0

    public init(settings: Settings) { self.settings = settings }

    static func load() -> String {
        ((try? SmallFile.text("/proc/loadavg")) ?? "?").split(separator: " ").prefix(3).joined(separator: " ")
    }
    public func write(to path: String) throws { try writeJSON(self, to: path) }
}

/// One case and all that it measured.
public struct BenchCase: Codable, Sendable {
    public var name: String
    public var title: String
    /// /proc/loadavg before it.
    public var load = BenchReport.load()
    public var figures: [Figure] = []
    public var freezes: [FreezeSteps] = []
    public var verdicts: [Verdict] = []
    /// What a reader has to know to judge the figures.
    public var notes: [String] = []
    /// What went wrong, in words.
    public var problems: [String] = []
    public var seconds = 0.0
    /// Every migration's own report, by kind.
    public var migrations: [String: [MigrationReport]] = [:]
    /// The dirtier's verdict after each move, by kind.
    public var dirtier: [String: [DirtierVerdict]] = [:]
    public var redis: DemoReport?
    public var loads: [MirroredLoad] = []

    init(_ name: BenchName) { (self.name, title) = (name.rawValue, name.title) }

    public var passed: Bool { problems.isEmpty && !verdicts.isEmpty && verdicts.allSatisfy(\.passed) }
}

/// The cases by name.
public enum BenchName: String, CaseIterable, Codable, Sendable {
    case techniques, sizes, growth, redis, mirrored, stream, agents, links

    public var title: String {
        switch self {
        case .techniques: "dirtier 512 MiB, 1 thread, 5,000 pages/s, unlimited link"
        case .sizes: "dirtier of other sizes, MiGrror, 5,000 pages/s, unlimited link"
        case .growth: "threads, mappings, descriptors, files: how the freeze grows, MiGrror, unlimited link"
        case .redis: "redis 256 MiB under load, 1 Gbit/s, MiGrror back and forth"
        case .mirrored: "redis 256 MiB while mirrored, spacing auto, 1 Gbit/s"
        case .stream: "page stream, cold, against iperf3 on the same link"
        case .agents: "both agents: at rest, and moving 2 GiB by MiGrror"
        case .links: "emulated links: what was told, and what is found"
        }
    }
}

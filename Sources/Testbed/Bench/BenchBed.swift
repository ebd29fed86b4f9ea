// The testbed of one case: made for it, removed after it.
import Agent
import Glibc
import LinuxKernel
import Migration

/// A standing testbed with agents, and what cases do on it.
struct BenchBed: Sendable {
    let testbed: Testbed
    let options: Bench.Options
    let progress: @Sendable (String) -> Void
    var topology: Topology { testbed.topology }

    /// Moves a container and waits for the end.
    func move(_ name: String, from source: EdgeHost, to destination: EdgeHost, _ plan: MigrationPlan) async throws
        -> MigrationReport
    {
        let report = try await AgentHosts().migrate(name, from: source, to: destination, plan: plan, progress: { _ in })
        progress(
            "\(source.name) → \(destination.name) by \(plan.technique.rawValue): engine downtime"
                + " \(grouped(report.engineDowntime, digits: 2)) ms, \(grouped(report.migrationTime / 1000, digits: 2)) s in all"
        )
        return report
    }

    /// The agents' processes, by the hosts' order.
    func agents() async throws -> [ProcessMeter] {
        var meters: [ProcessMeter] = []
        for host in topology.hosts {
            meters.append(ProcessMeter(pid: try await AgentClient(host: host.name).host().pid))
        }
        return meters
    }
}

/// MemAvailable, bytes.
func availableMemory() -> UInt64 {
    let text = (try? SmallFile.text("/proc/meminfo")) ?? ""
    let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") } ?? ""
    return (line.split(separator: " ").dropFirst().first.flatMap { UInt64($0) } ?? 0) * 1024
}

extension Verdict {
    /// The oracle's word after every move.
    static func oracle(_ verdicts: [DirtierVerdict], planned: Int, _ kind: String = "") -> Verdict {
        let bad = verdicts.count { $0.oracle != "ok" }
        return Verdict(
            "\(kind)memory exact after every move", bad == 0 && verdicts.count == planned,
            "\(verdicts.count) of \(planned) moves made, every page checked after each"
                + (bad == 0 ? "" : "; \(bad) times wrong"))
    }
}

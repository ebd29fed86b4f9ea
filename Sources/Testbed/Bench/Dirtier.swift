// The dirtier in a container: a workload that writes pages at a steady rate, knows its own gaps and its memory.
import Agent
import Containers
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration

/// One line of the dirtier's output: what its oracle says and when it did not run.
public struct DirtierVerdict: Codable, Sendable {
    public struct Gap: Codable, Sendable {
        public var microseconds: Double
        /// CLOCK_MONOTONIC nanoseconds.
        public var start: Int64
        public var end: Int64
        private enum CodingKeys: String, CodingKey { case microseconds = "us", start = "start_ns", end = "end_ns" }
    }
    /// "ok", "corrupt" or "unchecked".
    public var oracle: String
    public var writes: UInt64
    /// The largest gap since the last reset, microseconds.
    public var largest: Double
    /// Gaps of more than 1 ms since the last reset, largest first.
    public var gaps: [Gap]
    private enum CodingKeys: String, CodingKey { case oracle, writes, largest = "max_gap_us", gaps }

    /// The gap in which a migration's blackout lies. nil: it is not among those that the dirtier keeps.
    private func blackout(_ report: MigrationReport) -> Gap? {
        gaps.first { $0.start < report.releasedAt && $0.end > report.frozenAt }
    }
    /// That gap, milliseconds.
    func downtime(_ report: MigrationReport) -> Double? { blackout(report).map { $0.microseconds / 1000 } }
    /// How much of it came after the release, milliseconds.
    func delay(_ report: MigrationReport) -> Double? {
        blackout(report).map { max(0, Double($0.end - report.releasedAt) / 1e6) }
    }
    /// The largest other gap between the migration's decision and its release, milliseconds.
    func disturbance(_ report: MigrationReport) -> Double {
        let decided = report.releasedAt - Int64(report.migrationTime * 1e6)
        let others = gaps.filter { $0.start > decided && $0.end <= report.frozenAt }
        return (others.map(\.microseconds).max() ?? 0) / 1000
    }
}

/// A dirtier on the testbed.
final class Dirtier {
    let name = "dirtier"
    private(set) var at: EdgeHost
    private let bed: BenchBed
    private var logOffset: UInt64 = 0
    private var unread: [UInt8] = []

    /// Starts it on the first host and waits until its memory is filled.
    init(on bed: BenchBed, memory: UInt64, rate: String = "5000") async throws {
        (self.bed, at) = (bed, bed.topology.hosts[0])
        let bundle = bed.testbed.folder + "/bundle-dirtier"
        if !fileExists(bundle) {
            try makeFolders(bed.testbed.folder)
            var builder = BundleBuilder(
                programs: [],
                arguments: ["/bin/dirtier", "--memory", "\(memory)", "--rate", rate, "--threads", "1"])
            builder.hostName = "dirtier"
            try builder.build(in: bundle)
            let program = try FileDescriptor(
                opening: bundle + "/rootfs/bin/dirtier", O_WRONLY | O_CREAT | O_EXCL, mode: 0o755)
            try SmallFile.read(bed.options.dirtier).withUnsafeBytes { try program.write($0) }
        }
        _ = try await AgentClient(host: at.name).run(RunRequest(name: name, bundle: bundle))
        guard try await line(seconds: 120).contains("\"ready\"") else { throw TestbedError("the dirtier is not ready") }
    }

    /// Moves it to the other host and asks what it noticed.
    func move(_ plan: MigrationPlan) async throws -> (MigrationReport, DirtierVerdict) {
        let other = bed.topology.hosts.first { $0 != at }!
        try await AgentClient(host: at.name).kill(name, signal: SIGUSR2)
        // It attends to signals every 20 ms.
        try await Task.sleep(for: .milliseconds(300))
        let report = try await bed.move(name, from: at, to: other, plan)
        at = other
        try await Task.sleep(for: .milliseconds(200))
        return (report, try await verdict())
    }

    /// Has every page checked.
    func verdict() async throws -> DirtierVerdict {
        try await AgentClient(host: at.name).kill(name, signal: SIGUSR1)
        let line = try await line(seconds: 180)
        do { return try JSONDecoder().decode(DirtierVerdict.self, from: Data(line.utf8)) } catch {
            throw TestbedError("the dirtier's verdict is not understood: \(line)")
        }
    }

    func remove() async throws { try await AgentClient(host: at.name).remove(name, force: true) }

    /// The next line of its output.
    private func line(seconds: Double) async throws -> String {
        let deadline = monotonicNow() + Int64(seconds * 1e9)
        while true {
            if let end = unread.firstIndex(of: 10) {
                defer { unread.removeFirst(end + 1) }
                return String(decoding: unread[..<end], as: UTF8.self)
            }
            let piece = try await AgentClient(host: at.name).log(name, from: logOffset)
            logOffset += UInt64(piece.count)
            unread += piece
            if !piece.isEmpty { continue }
            guard monotonicNow() < deadline else { throw TestbedError("the dirtier said nothing for \(seconds) s") }
            try await Task.sleep(for: .milliseconds(20))
        }
    }
}

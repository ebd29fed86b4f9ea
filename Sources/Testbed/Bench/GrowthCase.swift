// How the freeze grows with what a container has: threads, mappings, descriptors, files.
import Agent
import Containers
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration

/// What there can be many of, with the numbers that are measured and what they are held against.
private struct CrowdKind {
    let name: String
    /// Numbers, and the most milliseconds of downtime that they may cost.
    let aims: [(number: Int, limit: Double?)]

    static let all = [
        CrowdKind(name: "threads", aims: [(200, nil), (256, 8), (2000, 150)]),
        CrowdKind(name: "mappings", aims: [(2000, nil), (20_000, 10)]),
        CrowdKind(name: "descriptors", aims: [(100, nil), (1000, 5)]),
        CrowdKind(name: "files", aims: [(5000, nil), (50_000, 5)]),
    ]
}

extension Bench {
    func growth(_ bed: BenchBed, _ result: inout BenchCase) async throws {
        var planned = 0, answers: [String] = [], failure: (any Error)?
        measuring: for kind in CrowdKind.all {
            var downtimes: [Int: Double] = [:]
            for (number, limit) in kind.aims {
                let title = "\(grouped(Double(number))) \(kind.name)"
                planned += options.repetitions
                do {
                    let crowd = try await BenchCrowd(kind.name, number, on: bed)
                    for _ in 0..<options.repetitions {
                        let (report, answer) = try await crowd.move(MigrationPlan(technique: .migrror))
                        result.migrations[title, default: []].append(report)
                        answers.append(answer)
                    }
                    try await crowd.remove()
                } catch {
                    failure = failure ?? error
                    continue measuring
                }
                let reports = result.migrations[title] ?? []
                downtimes[number] = reports.map(\.engineDowntime).median
                result.freezes.append(FreezeSteps(title, reports))
                result.figures += [
                    Figure(
                        "\(title): engine downtime", "ms", reports.map(\.engineDowntime),
                        aim: limit.map { .median(atMost: $0) }),
                    Figure("  migration time", "ms", reports.map(\.migrationTime), digits: 0),
                ]
            }
            // Linear, and what does not grow counted in: at most 1.
            let least = kind.aims[0].number, most = kind.aims.last!.number
            if let small = downtimes[least], let large = downtimes[most], small > 0 {
                let ratio = large / Double(most) / (small / Double(least))
                result.figures.append(
                    Figure("time for each of \(most) by that of \(least)", "", [ratio], aim: .each(atMost: 1.5)))
            }
        }
        let right = answers.count { $0.contains("\"oracle\":\"ok\"") }
        result.verdicts.append(
            Verdict(
                "everything as it was after every move", right == planned,
                "\(right) of \(planned) moves made and checked"))
        if let failure { throw failure }
    }
}

/// Workloads/crowd in a container, moved back and forth.
private final class BenchCrowd {
    private let bed: BenchBed
    private let container = "crowd"
    private var at: EdgeHost
    private var logOffset: UInt64 = 0

    /// Starts it on the first host and waits until everything is made.
    init(_ kind: String, _ number: Int, on bed: BenchBed) async throws {
        (self.bed, at) = (bed, bed.topology.hosts[0])
        let bundle = "\(bed.testbed.folder)/bundle-crowd"
        removeTree(bundle)
        try makeFolders(bed.testbed.folder)
        let program = (bed.options.dirtier.split(separator: "/").dropLast() + ["crowd"]).joined(separator: "/")
        let path = bed.options.dirtier.hasPrefix("/") ? "/\(program)" : program
        var builder = BundleBuilder(programs: [], arguments: ["/bin/crowd", kind, "\(number)"])
        builder.hostName = "crowd"
        try builder.build(in: bundle)
        let copy = try FileDescriptor(opening: bundle + "/rootfs/bin/crowd", O_WRONLY | O_CREAT | O_EXCL, mode: 0o755)
        try SmallFile.read(path).withUnsafeBytes { try copy.write($0) }
        _ = try await AgentClient(host: at.name).run(RunRequest(name: container, bundle: bundle))
        let first = try await line()
        guard first.contains("\"ready\"") else { throw TestbedError("crowd \(kind) \(number) is not ready: \(first)") }
    }

    /// Moves it to the other host and asks whether everything is as it was.
    func move(_ plan: MigrationPlan) async throws -> (MigrationReport, answer: String) {
        let other = bed.topology.hosts.first { $0 != at }!
        let report = try await bed.move(container, from: at, to: other, plan)
        at = other
        try await AgentClient(host: at.name).kill(container, signal: SIGUSR1)
        return (report, try await line())
    }

    func remove() async throws { try await AgentClient(host: at.name).remove(container, force: true) }

    /// The next line of its output.
    private func line() async throws -> String {
        let deadline = monotonicNow() + 120_000_000_000
        while monotonicNow() < deadline {
            let piece = try await AgentClient(host: at.name).log(container, from: logOffset)
            if let end = piece.firstIndex(of: 10) {
                logOffset += UInt64(end - piece.startIndex + 1)
                return String(decoding: piece[..<end], as: UTF8.self)
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        throw TestbedError("the crowd said nothing for 120 s")
    }
}

// The benchmarks: each case on a testbed of its own, its figures held against their aims.
import Agent
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration

public struct Bench: Sendable {
    public struct Options: Sendable {
        public var cases = BenchName.allCases
        public var quick = false
        public var repetitions = 10
        public var redisMoves = 30
        public var instance = "bench"
        /// The program that Workloads/Makefile builds.
        public var dirtier = ".build/workloads/dirtier"
        public init() {}
    }

    public let options: Options
    let progress: @Sendable (String) -> Void

    public init(_ options: Options, progress: @escaping @Sendable (String) -> Void) {
        (self.options, self.progress) = (options, progress)
    }

    /// Runs every case that was asked for. What goes wrong in one is a problem of that case; the others go on.
    ///
    /// - Throws: when the benchmarks cannot begin.
    public func run() async throws -> BenchReport {
        guard fileExists(options.dirtier) else {
            throw TestbedError("\(options.dirtier) is missing: `make build` makes it")
        }
        let start = monotonicNow()
        var report = BenchReport(
            settings: .init(quick: options.quick, repetitions: options.repetitions, redisMoves: options.redisMoves))
        report.startedAt = Date().ISO8601Format()
        // Everything that `down` removes follows from the instance's name, so one object serves every testbed.
        let whole = Testbed(try Topology(instance: options.instance, backhaul: .unlimited))
        if let state = try TestbedState.load(instance: options.instance), state.owner?.isAlive ?? true {
            throw TestbedError("testbed \(options.instance) stands: choose another --instance, or take it down")
        }
        let teardown = try Teardown { whole.down() }
        for name in options.cases {
            var result = BenchCase(name)
            let began = monotonicNow()
            progress("── \(name.rawValue): \(name.title)")
            do { try await run(name, &result, &report, teardown) } catch { result.problems.append("\(error)") }
            result.seconds = Double(monotonicNow() - began) / 1e9
            report.cases.append(result)
        }
        teardown.finish()
        report.loadAfter = BenchReport.load()
        report.seconds = Double(monotonicNow() - start) / 1e9
        report.passed = !report.cases.isEmpty && report.cases.allSatisfy(\.passed)
        return report
    }

    private func run(
        _ name: BenchName, _ result: inout BenchCase, _ report: inout BenchReport, _ teardown: Teardown
    ) async throws {
        if name == .links { return try await links(&result, teardown) }
        // The page stream is measured on two links, one after the other.
        let gigabit = LinkRate("1gbit")!
        let links: [LinkRate] =
            switch name {
            case .redis, .mirrored: [gigabit]
            case .techniques, .sizes, .growth, .agents: [.unlimited]
            case .stream: [gigabit, .unlimited]
            case .links: []
            }
        for link in links {
            let testbed = Testbed(try Topology(instance: options.instance, backhaul: link))
            try teardown.making { try testbed.upNetwork(owned: true) }
            let bed = BenchBed(testbed: testbed, options: options) { [progress] in
                if !teardown.isEnding { progress($0) }
            }
            do {
                let children = try teardown.making { try testbed.spawnAgents() }
                try await testbed.waitForAgents(children)
                let host = try await AgentClient(host: testbed.topology.hosts[0].name).host()
                // "runc version 1.1.5+ds1" and further lines.
                report.runtime = host.runtimeVersion?.split(separator: "\n").first.map(String.init) ?? host.runtime
                if !report.runtime.hasPrefix(host.runtime) { report.runtime = "\(host.runtime) \(report.runtime)" }
                switch name {
                case .techniques: try await techniques(bed, &result)
                case .sizes: try await sizes(bed, &result, with: report)
                case .growth: try await growth(bed, &result)
                case .redis: try await redis(bed, &result)
                case .mirrored: try await mirrored(bed, &result)
                case .stream: try await stream(bed, &result)
                case .agents: try await agents(bed, &result)
                case .links: break
                }
            } catch {
                result.problems.append("\(error)")
                let words = testbed.topology.hosts.map { testbed.lastWords($0, lines: 5) }.filter { !$0.isEmpty }
                if !words.isEmpty {
                    result.problems.append("the agents' last words: " + words.joined(separator: " / "))
                }
            }
            try teardown.making { testbed.down() }
            let left = testbed.leftovers()
            if !left.isEmpty || link == links.last {
                result.verdicts.append(
                    Verdict(
                        "nothing left behind", left.isEmpty,
                        left.isEmpty ? "no process, namespace, mount, cgroup or folder" : left.joined(separator: ", ")))
            }
        }
    }
}

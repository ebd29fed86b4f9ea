import LinuxKernel
import ArgumentParser
@preconcurrency import Glibc
import Testbed

struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure what migrations cost, on a testbed of its own.",
        discussion: """
            Ends with status 1 if a verdict is wrong; a figure that \
            misses its aim is marked and does not fail. Nothing is left afterwards.
            """,
        shouldDisplay: false)

    @Flag(help: "3 repetitions instead of 10 (redis: 30), and no 8 GiB.")
    var quick = false
    @Option(name: .customLong("case"), help: "Only this case; may be repeated.")
    var cases: [BenchName] = []
    @Option(help: "Repetitions of everything, redis moves too.")
    var repetitions: Int?
    @Option(help: "Where the report goes.")
    var jsonFile = "benchmark.json"
    @Option(help: "Name of the testbed.")
    var instance = "bench"
    @Option(help: "The dirtier, built for static use.")
    var dirtier = ".build/workloads/dirtier"

    func run() async throws {
        if let repetitions, !(1...1000).contains(repetitions) {
            throw ValidationError("--repetitions \(repetitions): 1 to 1000")
        }
        var options = Bench.Options()
        if !cases.isEmpty { options.cases = cases }
        options.quick = quick
        options.repetitions = repetitions ?? (quick ? 3 : 10)
        options.redisMoves = repetitions ?? (quick ? 3 : 30)
        options.instance = instance
        options.dirtier = dirtier
        setvbuf(stdout, nil, _IOLBF, 0)
        let start = monotonicNow()
        let report = try await Bench(options) { line in
            print(Demo.progressLine(Double(monotonicNow() - start) / 1e9, line))
        }.run()
        try report.write(to: jsonFile)
        print(report.text())
        print("\n  \(report.passed ? "All verdicts hold." : "NOT ALL IS WELL.") Details: \(jsonFile)")
        if !report.passed { throw ExitCode(1) }
    }
}

extension BenchName: ExpressibleByArgument {}

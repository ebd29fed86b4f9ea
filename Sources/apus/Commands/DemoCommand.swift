import LinuxKernel
import ArgumentParser
@preconcurrency import Glibc
import Testbed

struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Move a live redis between two edge hosts by cold, pre-copy and MiGrror.",
        discussion: """
            Makes a testbed, fills a redis-server in a container, keeps a client asking every millisecond, \
            moves the container three times and judges what the client saw. Ends with status 1 if a verdict is \
            wrong. Nothing is left afterwards.
            """)

    @Option(help: "Values that redis is filled with: 256MiB, 1GiB ...")
    var memory = "256MiB"
    @Option(help: "Requests a second (10 to 20000).")
    var rate = 1000.0
    @Option(help: "Rate of the backhaul each way: 1gbit, 100mbit, unlimited ...")
    var backhaul = "1gbit"
    @Option(name: .customLong("repeat"), help: "How often the three moves are made.")
    var repetitions = 1
    @Option(help: "Share of incompressible bytes in the values, 0 to 1.")
    var entropy = 1.0
    @Option(help: "Where the report goes.")
    var jsonFile = "demo-report.json"
    @Option(help: "Name of the testbed.")
    var instance = Topology.defaultInstance
    @Flag(help: "Leave the testbed and the container standing.")
    var keep = false
    @Flag(help: "Print the report as JSON instead of the table.")
    var json = false

    func run() async throws {
        guard let memory = ByteCount(memory), memory.bytes >= 1 << 20 else {
            throw ValidationError("--memory \(self.memory): give at least 1MiB, as in 256MiB")
        }
        guard let backhaul = LinkRate(backhaul) else {
            throw ValidationError("--backhaul \(self.backhaul): not a rate; try 1gbit, 100mbit or unlimited")
        }
        guard (10...20000).contains(rate) else { throw ValidationError("--rate \(rate): 10 to 20000") }
        guard (1...1000).contains(repetitions) else { throw ValidationError("--repeat \(repetitions): 1 to 1000") }
        guard (0...1).contains(entropy) else { throw ValidationError("--entropy \(entropy): 0 to 1") }
        var options = Demo.Options()
        options.memory = memory
        options.rate = rate
        options.repetitions = repetitions
        options.values.entropy = entropy
        // Progress shows line by line in a log or a pipe too.
        setvbuf(stdout, nil, _IOLBF, 0)
        let start = monotonicNow()
        let quiet = json
        let report = try await Demo.run(
            try Topology(instance: instance, backhaul: backhaul), options, keep: keep
        ) { line in
            guard !quiet else { return }
            let seconds = Double(monotonicNow() - start) / 1e9
            print(Demo.progressLine(seconds, line))
        }
        try report.write(to: jsonFile)
        if json {
            print(try report.json())
        } else {
            print(report.text())
            print("\n  \(report.passed ? "All verdicts hold." : "NOT ALL IS WELL.") Details: \(jsonFile)")
        }
        if !report.passed { throw ExitCode(1) }
    }
}

import ArgumentParser
import Evaluation
import Testbed

struct PredictCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "predict", abstract: "Predict what a migration costs by each technique.",
        discussion: """
            Models, not measurements: docs/models.md says what each one leaves out. Handover as soon as the technique is \
            ready, engine costs as in docs/performance.md. Needs no agent and no privileges.
            """)

    @OptionGroup var output: OutputOptions
    @Option(help: ArgumentHelp("The container's memory.", valueName: "size"))
    var memory = "128MiB"
    @Option(
        help: ArgumentHelp("Memory dirtied a second, pages counted whole (10MiB unless --lambda).", valueName: "size"))
    var dirtyRate: String?
    @Option(help: ArgumentHelp("The same over what the link carries, 0 to 100.", valueName: "ratio"))
    var lambda: Double?
    @Option(help: ArgumentHelp("The most that can be dirty at once; all memory by default.", valueName: "size"))
    var workingSet: String?
    @Option(help: ArgumentHelp("The link, like 100mbit, 1gbit or unlimited.", valueName: "rate"))
    var bandwidth = "1gbit"
    @Option(help: ArgumentHelp("Round trip between the hosts.", valueName: "ms"))
    var rtt = 0.1
    @Option(help: "Containers like it that are moved at the same time over the link.")
    var containers = 1
    @Option(help: ArgumentHelp("Pre-copy: hand over when the rest can be sent in this time.", valueName: "ms"))
    var downtimeLimit = 5.0

    func validate() throws { _ = try predictor() }

    func run() throws {
        let predictor = try predictor()
        print(output.json ? json(PredictionReport(predictor)) : PredictionText(predictor).text)
    }

    /// The models with what the options say.
    func predictor() throws -> Predictor {
        let size = try bytes("--memory", memory, from: 4096)
        guard let rate = LinkRate(bandwidth) else {
            throw ValidationError(
                "--bandwidth \(bandwidth): 1kbit up to below 10000gbit, such as 1gbit, 100mbit or 5500kbit, or unlimited"
            )
        }
        guard (0...60_000).contains(rtt) else { throw ValidationError("--rtt \(rtt): 0 to 60,000 ms") }
        guard downtimeLimit > 0, downtimeLimit <= 3_600_000 else {
            throw ValidationError("--downtime-limit \(downtimeLimit): above 0 and at most 3,600,000 ms")
        }
        let link = rate.bitsPerSecond.map { Double($0) / 8 } ?? .infinity
        var scenario = MigrationScenario(size: size, dirtyRate: 0, bandwidth: link, roundTrip: rtt)
        scenario.downtimeLimit = downtimeLimit
        guard (1...1000).contains(containers) else { throw ValidationError("--containers \(containers): 1 to 1000") }
        scenario.containers = containers
        if let workingSet {
            let set = try bytes("--working-set", workingSet, from: 4096)
            guard set <= size else {
                throw ValidationError("--working-set \(workingSet): 4KiB to --memory, which is \(memory)")
            }
            scenario.workingSet = set
        }
        if let lambda {
            guard dirtyRate == nil else {
                throw ValidationError("--lambda \(lambda) and --dirty-rate \(dirtyRate!): only one of them")
            }
            guard (0...100).contains(lambda) else { throw ValidationError("--lambda \(lambda): 0 to 100") }
            scenario.dirtyRate = lambda * Predictor(scenario).goodput
        } else {
            let text = dirtyRate ?? "10MiB"
            let amount = text.hasSuffix("/s") ? String(text.dropLast(2)) : text
            scenario.dirtyRate = amount == "0" ? 0 : try bytes("--dirty-rate", amount, from: 0)
        }
        return Predictor(scenario)
    }

    private func bytes(_ option: String, _ text: String, from least: UInt64) throws -> Double {
        guard let count = ByteCount(text), count.bytes >= least else {
            throw ValidationError(
                "\(option) \(text): \(least == 0 ? "0" : "4KiB") to below 900TiB, such as 128MiB, 1.5GiB or 65536")
        }
        return Double(count.bytes)
    }
}

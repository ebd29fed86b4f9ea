import Agent
import ArgumentParser
import Glibc
import Migration
import Testbed

struct MigrateCommand: AsyncParsableCommand, Interruptible {
    static let configuration = CommandConfiguration(
        commandName: "migrate", abstract: "Move a running container to another host.",
        discussion: """
            Ctrl-C cancels: the container runs on where it is. With --detach the migration is the agent's business and \
            `apus ps`, `handover` and `cancel` speak with it.
            """)

    @OptionGroup var host: HostOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The container's name.") var name: String
    @Option(
        help: ArgumentHelp("The host to move to: a peer's name, or a numeric address with a port.", valueName: "host"))
    var to: String
    @Option(help: "cold, pre-copy or migrror.")
    var technique: Technique
    @Option(help: "Begin the handover when the technique is ready, or at `apus handover`.")
    var handover = HandoverPolicy.whenReady
    @Option(
        help: ArgumentHelp(
            "The parameters of the technique as the literature has it: \(TechniquePreset.allCases.map(\.rawValue).joined(separator: ", ")). Other options come on top.",
            valueName: "name"))
    var preset: TechniquePreset?
    @Option(
        help: ArgumentHelp(
            "Ready when what is dirty or unsent can be sent in this time.", valueName: "ms"))
    var readyWithin: Double?
    @Option(
        help: ArgumentHelp(
            "Passes back to back before the freeze: until they get no shorter, none, or so many milliseconds at most.",
            valueName: "on|off|ms"))
    var runUp: String?
    @Option(
        help: ArgumentHelp(
            "Pre-copy: rounds before the last one, the first of which sends everything, 1 to 1000.", valueName: "number"
        ))
    var maxRounds: Int?
    @Option(help: ArgumentHelp("Pre-copy: least time from one round to the next.", valueName: "ms"))
    var roundInterval: Double?
    @Option(
        help: ArgumentHelp(
            "Pre-copy: the same while it waits for `apus handover` with its rounds done.", valueName: "ms|none"))
    var waitInterval: String?
    @Option(help: ArgumentHelp("Pre-copy: no more rounds at so few dirty pages.", valueName: "number"))
    var stopPages: Int?
    @Option(
        help: ArgumentHelp("Pre-copy: no more rounds once they grow by so much.", valueName: "percent"))
    var stopGrowth: Double?
    @Option(
        help: ArgumentHelp(
            "Longest that the container may stand still before the promise: 1000 for techniques with a copy phase, none for cold.",
            valueName: "ms|none"))
    var freezeLimit: String?
    @Option(
        help: ArgumentHelp(
            "MiGrror: dirty pages that make an event; auto: any, faults told of by 32.", valueName: "auto|number"))
    var eventPages = "auto"
    @Option(help: ArgumentHelp("MiGrror: least time between two syncs, or auto.", valueName: "auto|ms"))
    var minSpacing = "auto"
    @Option(help: "MiGrror: notice events by scans of the page table, or by page faults.")
    var events = EventSource.auto
    @Option(
        help: ArgumentHelp(
            "Accept a difference that is refused otherwise: inode-numbers (an open SQLite database not in WAL mode).",
            valueName: "difference"))
    var accept: [Acceptance] = []
    @Flag(help: "Return as soon as the migration has begun.")
    var detach = false

    /// The technique with its parameters.
    func plan() throws -> MigrationPlan {
        var plan = MigrationPlan(technique: technique)
        plan.handover = handover
        // The preset of a fixed interval builds on it.
        if let roundInterval { plan.roundInterval = roundInterval }
        if let preset {
            guard preset.technique == technique else {
                throw ValidationError("--preset \(preset.rawValue) is a form of \(preset.technique.rawValue)")
            }
            plan.apply(preset)
        }
        if let readyWithin { plan.readyWithin = readyWithin }
        if let maxRounds { plan.maxRounds = maxRounds }
        if let stopPages { plan.stopPages = stopPages }
        if let stopGrowth { plan.stopGrowth = stopGrowth }
        switch runUp {
        case nil: break
        case "on": plan.runUp = MigrationPlan.usualRunUp
        case "off": plan.runUp = 0
        case let text?: plan.runUp = try Self.number(text, "--run-up is on, off or milliseconds")
        }
        if let waitInterval {
            plan.waitInterval =
                waitInterval == "none" ? nil : try Self.number(waitInterval, "--wait-interval is none or milliseconds")
        }
        if eventPages != "auto" {
            guard let pages = Int(eventPages) else {
                throw ValidationError("--event-pages is auto or a number, not \(eventPages)")
            }
            plan.eventPages = pages
        }
        if minSpacing != "auto" {
            plan.minSpacing = try Self.number(minSpacing, "--min-spacing is auto or milliseconds")
        }
        if let freezeLimit {
            plan.freezeLimit =
                freezeLimit == "none" ? nil : try Self.number(freezeLimit, "--freeze-limit is none or milliseconds")
        }
        plan.events = events
        if !accept.isEmpty { plan.accept = Set(accept) }
        // An option that would have no effect is a misunderstanding.
        let strangers: [(String, Bool, [CopyPhase])] = [
            ("--max-rounds", maxRounds != nil, [.rounds]), ("--round-interval", roundInterval != nil, [.rounds]),
            ("--wait-interval", waitInterval != nil, [.rounds]), ("--stop-pages", stopPages != nil, [.rounds]),
            ("--stop-growth", stopGrowth != nil, [.rounds]), ("--event-pages", eventPages != "auto", [.mirroring]),
            ("--min-spacing", minSpacing != "auto", [.mirroring]), ("--events", events != .auto, [.mirroring]),
            ("--ready-within", readyWithin != nil, [.rounds, .mirroring]),
            ("--run-up", runUp != nil, [.rounds, .mirroring]),
        ]
        for (option, given, phases) in strangers where given && !phases.contains(technique.copy) {
            let owners = phases.map { $0 == .rounds ? "pre-copy" : "MiGrror" }.joined(separator: " and ")
            throw ValidationError("\(option) belongs to \(owners) and means nothing to \(technique.rawValue)")
        }
        if let mistake = plan.mistakes.first { throw ValidationError(mistake) }
        return plan
    }

    private static func number(_ text: String, _ what: String) throws -> Double {
        guard let number = Double(text) else { throw ValidationError("\(what), not \(text)") }
        return number
    }

    func validate() throws { _ = try plan() }

    func run() async throws {
        let client = try host.client()
        let id = try await client.migrate(name, to: to, plan: try plan())
        if detach {
            struct Started: Encodable { var id: String }
            return print(output.json ? json(Started(id: id)) : "migration \(id) began; `apus ps` shows it")
        }
        let container = name
        try Interruption.each { count in
            if count > 1 {
                Terminal.say("\napus: no longer waiting; `apus ps` shows migration \(id)\n")
                Terminal.end(ExitStatus.cancelled.rawValue)
            }
            Terminal.say("\napus: cancelling the migration of \(container)\n")
            Task { _ = try? await client.cancel(id) }
        }
        let line = ProgressLine()
        let end = try await client.wait(for: id) { line.show($0) }
        line.clear()
        if let report = end.report {
            return print(output.json ? json(report) : Self.text(report))
        }
        if !end.isOver {
            throw Doubt(end, on: try await client.host()).error
        }
        throw end.error ?? AgentError(.failed, "migration \(id) ended without a report")
    }

    static func text(_ report: MigrationReport) -> String {
        var lines = [
            "\(report.container) moved from \(report.source) to \(report.destination) by \(report.plan.technique.rawValue)",
            "  engine downtime  \(Human.duration(report.engineDowntime)) (clock: \(report.clock))",
            "  migration time   \(Human.duration(report.migrationTime))"
                + (report.phases.isEmpty
                    ? ""
                    : ": " + report.phases.map { "\($0.name) \(Human.duration($0.duration))" }.joined(separator: ", ")),
            "  sent             \(report.pagesSent) pages, \(Human.bytes(report.bytesSent)), overhead "
                + "\(Human.fixed(report.overhead * 100, 1)) %",
            "  passes           \(report.passes.count)",
        ]
        let postponed = report.handovers.dropLast()
        if !postponed.isEmpty {
            lines.append(
                "  handovers        \(report.handovers.count) tried; those before the last stopped it for "
                    + postponed.map { Human.duration($0.frozen) }.joined(separator: ", "))
        }
        if let ready = report.readyAt { lines.append("  ready after      \(Human.duration(ready))") }
        return lines.joined(separator: "\n")
    }
}

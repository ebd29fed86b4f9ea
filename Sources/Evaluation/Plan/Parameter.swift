// The parameters by their names in a plan. A new one is a case here, its definition, and a property of `RunParameters`.
import Migration
import Testbed

/// What a plan can set or vary.
public enum Parameter: String, CaseIterable, Sendable, Codable {
    case technique, workload, memory, containers, bandwidth, rtt, jitter, loss, lambda
    case dirtyRate = "dirty-rate"
    case workingSet = "working-set"
    case share
    case writeSize = "write-size"
    case profile
    case profilePeriod = "profile-period"
    case rate, mix, distribution, vehicles, transport, handover
    case triggerAfter = "trigger-after"
    case triggerJitter = "trigger-jitter"
    case preset
    case readyWithin = "ready-within"
    case runUp = "run-up"
    case events
    case eventPages = "event-pages"
    case minSpacing = "min-spacing"
    case maxRounds = "max-rounds"
    case roundInterval = "round-interval"
    case waitInterval = "wait-interval"
    case freezeLimit = "freeze-limit"
    case mobility, users, trace, speed, duration, reconnection

    var definition: ParameterDefinition {
        switch self {
        case .technique:
            .choice("technique", "technique", \.technique, name: \.name, find: EvaluatedTechnique.init)
        case .workload: .choice("workload", "workload", \.workload)
        case .memory:
            ParameterDefinition(
                title: "size of the state (MiB)", column: "memory_mib", number: { Double($0.memory) / 1_048_576 },
                text: { ParameterDefinition.text($0.memory) },
                read: { $1.memory = try ParameterDefinition.bytes($0, atLeast: 1 << 20) },
                reset: { $0.memory = RunParameters().memory })
        case .containers:
            .whole("containers moved at once", "containers", \.containers, 1...10, "containers")
                .only { $0.mobility == nil }
        case .bandwidth:
            ParameterDefinition(
                title: "bandwidth (Mbit/s)", column: "bandwidth_mbit", absent: "unlimited",
                number: { $0.bandwidth.bitsPerSecond.map { Double($0) / 1e6 } }, text: { "\($0.bandwidth)" },
                read: {
                    $1.bandwidth = try $0.choice(["a rate such as 100mbit or 1gbit", "unlimited"]) { LinkRate($0) }
                },
                reset: { $0.bandwidth = RunParameters().bandwidth })
        case .rtt: .number("round trip of the backhaul (ms)", "rtt_ms", \.roundTrip, 0...10_000, "milliseconds")
        case .jitter:
            .number("jitter of the backhaul, each way (ms)", "jitter_ms", \.jitter, 0...5000, "milliseconds")
                .only { $0.roundTrip > 0 }
        case .loss: .number("loss on the backhaul, each way (%)", "loss_percent", \.loss, 0...50, "percent")
        case .lambda:
            ParameterDefinition(
                title: "λ = dirty rate / bandwidth", column: "lambda", applies: \.isDirtier,
                number: { $0.lambda ?? $0.effectiveLambda }, text: { $0.lambda.map(plain) },
                read: {
                    $1.lambda = try $0.number(0...10, "dirty rate over bandwidth")
                    $1.dirtyRate = nil
                }, reset: { $0.lambda = nil })
        case .dirtyRate:
            ParameterDefinition(
                title: "dirty rate (MiB/s)", column: "dirty_mib_s", applies: \.isDirtier,
                number: { Double($0.pagesPerSecond) / 256 }, text: { $0.dirtyRate.map(ParameterDefinition.text) },
                read: {
                    $1.dirtyRate = try $0.text() == "0" ? 0 : ParameterDefinition.bytes($0, atLeast: 4096)
                    $1.lambda = nil
                }, reset: { $0.dirtyRate = nil })
        case .workingSet:
            .whole("working set (% of the memory)", "working_set_percent", \.workingSet, 1...100, "percent")
                .only(\.isDirtier)
        case .share:
            .whole("share of a page rewritten (%)", "share_percent", \.share, 1...100, "percent").only(\.isDirtier)
        case .writeSize:
            ParameterDefinition(
                title: "bytes written at once (KiB)", column: "write_kib", applies: \.isDirtier,
                number: { Double($0.writeSize) / 1024 }, text: { ParameterDefinition.text($0.writeSize) },
                read: { $1.writeSize = try wholePages($0) }, reset: { $0.writeSize = RunParameters().writeSize })
        case .profile: .choice("profile of the dirty rate", "profile", \.profile).only(\.isDirtier)
        case .profilePeriod:
            .number("period of the profile (s)", "profile_period_s", \.profilePeriod, 0.01...3600, "seconds")
                .only { $0.isDirtier && $0.profile != .constant }
        case .rate:
            .number(
                "requests, reports or frames (Hz)", "rate_hz", \.rate, or: "auto", absent: "the workload's own",
                1...100_000, "a second"
            ).only { $0.workload.fastestRate != nil }
        case .mix: .choice("YCSB workload", "mix", \.mix).only(\.workload.isKeyValue)
        case .distribution:
            ParameterDefinition(
                title: "choice of keys or pages", column: "distribution", isNumeric: false,
                absent: "the workload's own",
                applies: { $0.workload.isKeyValue || $0.isDirtier }, text: { $0.distribution?.rawValue ?? "auto" },
                read: {
                    $1.distribution = try $0.choice(["auto"] + AccessDistribution.allCases.map(\.rawValue)) {
                        (text: String) -> AccessDistribution?? in
                        text == "auto" ? .some(nil) : AccessDistribution(rawValue: text).map(Optional.some)
                    }
                }, reset: { $0.distribution = nil })
        case .vehicles:
            .whole("vehicles", "vehicles", \.vehicles, 1...1000, "vehicles").only { $0.workload == .vehicular }
        case .transport: .choice("transport", "transport", \.transport).only(\.isEdgeService)
        case .handover: .choice("handover policy", "handover", \.handover)
        case .triggerAfter:
            .number("trigger after the decision (s)", "trigger_after_s", \.triggerAfter, 0...3600, "seconds")
                .only { $0.handover == .atTrigger && $0.mobility == nil }
        case .triggerJitter:
            .number("jitter of the trigger (s)", "trigger_jitter_s", \.triggerJitter, 0...3600, "seconds")
                .only { $0.handover == .atTrigger && $0.mobility == nil }
        case .preset:
            ParameterDefinition(
                title: "the technique as in the literature", column: "preset", isNumeric: false, absent: "ours",
                applies: { $0.preset?.technique.copy == $0.technique.copy }, text: { $0.preset?.rawValue },
                read: {
                    $1.preset = try $0.choice(["none"] + TechniquePreset.allCases.map(\.rawValue)) {
                        (text: String) -> TechniquePreset?? in
                        text == "none" ? .some(nil) : TechniquePreset(rawValue: text).map(Optional.some)
                    }
                }, reset: { $0.preset = nil })
        case .readyWithin:
            .number("ready within (ms)", "ready_within_ms", \.readyWithin, 0.001...3_600_000, "milliseconds")
                .only { $0.technique.copy != .none && $0.isOurs }
        case .runUp:
            ParameterDefinition(
                title: "longest run-up (ms)", column: "run_up_ms",
                applies: { $0.technique.copy != .none && !$0.technique.isCRIU && $0.isOurs }, number: \.runUp,
                text: { $0.runUp == 0 ? "off" : $0.runUp == MigrationPlan.usualRunUp ? "on" : plain($0.runUp) },
                read: {
                    $1.runUp =
                        switch try $0.text() {
                        case "on": MigrationPlan.usualRunUp
                        case "off": 0
                        default: try $0.number(0...60_000, "milliseconds, or on or off")
                        }
                }, reset: { $0.runUp = MigrationPlan.usualRunUp })
        case .events: .choice("event source", "events", \.events).only(.mirroring, byCRIU: false)
        case .eventPages:
            .number(
                "event size (pages of 4 KiB)", "event_pages", \.eventPages, or: "auto", absent: "any",
                1...1_000_000, "pages"
            ).only(.mirroring)
        case .minSpacing:
            .number(
                "least spacing of syncs (ms)", "min_spacing_ms", \.minSpacing, or: "auto", absent: "adaptive",
                0...60_000, "milliseconds"
            ).only(.mirroring, byCRIU: false)
        case .maxRounds:
            .whole("most rounds", "max_rounds", \.maxRounds, 1...1000, "rounds").only(.rounds)
        case .roundInterval:
            .number(
                "round interval (ms)", "round_interval_ms", \.roundInterval, or: "none", absent: "none",
                0...3_600_000, "milliseconds"
            ).only(.rounds) { $0.preset == .fixedInterval }
        case .waitInterval:
            .number(
                "round interval while waiting (ms)", "wait_interval_ms", \.waitInterval, or: "none", absent: "none",
                0...3_600_000, "milliseconds"
            ).only(.rounds)
        case .freezeLimit:
            .number(
                "limit of the freeze (ms)", "freeze_limit_ms", \.freezeLimit, or: "none", absent: "none",
                1...3_600_000, "milliseconds"
            ).only { $0.technique.copy != .none && !$0.technique.isCRIU }
        case .mobility:
            ParameterDefinition(
                title: "when services follow their users", column: "mobility", isNumeric: false, absent: "nobody moves",
                text: { $0.mobility?.rawValue },
                read: {
                    $1.mobility = try $0.choice(["off"] + MobilityStrategy.allCases.map(\.rawValue)) {
                        (text: String) -> MobilityStrategy?? in
                        text == "off" ? .some(nil) : MobilityStrategy(rawValue: text).map(Optional.some)
                    }
                }, reset: { $0.mobility = nil })
        case .users: .whole("users", "users", \.users, 1...11, "users").only(\.isMobile)
        case .trace:
            ParameterDefinition(
                title: "trace", column: "trace", isNumeric: false, applies: \.isMobile, text: { $0.trace },
                read: { $1.trace = try $0.text() }, reset: { $0.trace = RunParameters.grid })
        case .speed:
            .number("speed (m/s)", "speed_m_s", \.speed, 0.1...100, "metres a second").only(\.isGenerated)
        case .duration:
            .number("length of the ways (s)", "duration_s", \.duration, 10...86_400, "seconds").only(\.isGenerated)
        case .reconnection:
            .number("reconnection (ms)", "reconnection_ms", \.reconnection, 0...60_000, "milliseconds").only(\.isMobile)
        }
    }

    /// Its name and unit on an axis.
    public var title: String { definition.title }
    /// Its column in the results' table `point`.
    var column: String { definition.column }
    /// What NULL means in that column.
    var absent: String { definition.absent }
    /// Whether its values are numbers.
    public var isNumeric: Bool { definition.isNumeric }

    /// Its value in the unit of `title`; nil: it is none ("auto", "unlimited", a name), or means nothing to the run.
    public func number(_ run: RunParameters) -> Double? {
        let definition = definition
        return definition.applies(run) ? definition.number(run) : nil
    }

    /// As a plan writes it; nil: it is not set, or means nothing to the run.
    func text(_ run: RunParameters) -> String? {
        let definition = definition
        return definition.applies(run) ? definition.text(run) : nil
    }

    /// Reads a plan's value into a run's parameters.
    func read(_ value: YAMLValue, into run: inout RunParameters) throws { try definition.read(value, &run) }
}

extension RunParameters {
    /// By our own parameters, not by a preset of the technique's.
    var isOurs: Bool { preset.map { $0.technique.copy != technique.copy } ?? true }
    fileprivate var isDirtier: Bool { workload == .dirtier }
    fileprivate var isEdgeService: Bool { workload == .vehicular || workload == .ar }
    fileprivate var isMobile: Bool { mobility != nil }
    fileprivate var isGenerated: Bool { mobility != nil && trace == Self.grid }
}

private func wholePages(_ value: YAMLValue) throws -> UInt64 {
    let size = try ParameterDefinition.bytes(value, atLeast: 4096)
    guard size % 4096 == 0, size <= 1 << 20 else {
        throw value.mistake("\"\(try value.text())\": whole pages of 4KiB, at most 1MiB")
    }
    return size
}

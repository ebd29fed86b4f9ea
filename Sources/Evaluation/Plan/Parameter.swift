// The parameters by their names in a plan: how each is read, and how it is written.
import Migration
import Testbed

/// What a plan can set or vary.
public enum Parameter: String, CaseIterable, Sendable, Codable {
    case technique, workload, memory, bandwidth, lambda
    case dirtyRate = "dirty-rate"
    case workingSet = "working-set"
    case share, handover
    case triggerAfter = "trigger-after"
    case events
    case eventPages = "event-pages"
    case minSpacing = "min-spacing"
    case maxRounds = "max-rounds"
    case roundInterval = "round-interval"
    case downtimeLimit = "downtime-limit"

    /// Its name and unit on an axis.
    public var title: String {
        switch self {
        case .technique: "technique"
        case .workload: "workload"
        case .memory: "size of the state (MiB)"
        case .bandwidth: "bandwidth (Mbit/s)"
        case .lambda: "λ = dirty rate / bandwidth"
        case .dirtyRate: "dirty rate (MiB/s)"
        case .workingSet: "working set (% of the memory)"
        case .share: "share of a page rewritten (%)"
        case .handover: "handover policy"
        case .triggerAfter: "trigger after the decision (s)"
        case .events: "event source"
        case .eventPages: "event size (pages of 4 KiB)"
        case .minSpacing: "least spacing of syncs (ms)"
        case .maxRounds: "most rounds"
        case .roundInterval: "round interval (ms)"
        case .downtimeLimit: "downtime limit (ms)"
        }
    }

    /// Its column in the results' table `point`.
    var column: String {
        switch self {
        case .technique, .workload, .handover, .events: rawValue
        case .memory: "memory_mib"
        case .bandwidth: "bandwidth_mbit"
        case .lambda: "lambda"
        case .dirtyRate: "dirty_mib_s"
        case .workingSet: "working_set_percent"
        case .share: "share_percent"
        case .triggerAfter: "trigger_after_s"
        case .eventPages: "event_pages"
        case .minSpacing: "min_spacing_ms"
        case .maxRounds: "max_rounds"
        case .roundInterval: "round_interval_ms"
        case .downtimeLimit: "downtime_limit_ms"
        }
    }

    /// What NULL means in that column.
    var absent: String {
        switch self {
        case .bandwidth: "unlimited"
        case .minSpacing: "adaptive"
        case .roundInterval: "none"
        default: "–"
        }
    }

    /// Whether its values are numbers.
    public var isNumeric: Bool {
        switch self {
        case .technique, .workload, .handover, .events: false
        default: true
        }
    }

    /// Its value in the unit of `title`; nil: it is none ("auto", "unlimited", a name).
    public func number(_ run: RunParameters) -> Double? {
        switch self {
        case .memory: Double(run.memory) / 1_048_576
        case .bandwidth: run.bandwidth.bitsPerSecond.map { Double($0) / 1e6 }
        case .lambda: run.effectiveLambda
        case .dirtyRate: Double(run.pagesPerSecond) / 256
        case .workingSet: Double(run.workingSet)
        case .share: Double(run.share)
        case .triggerAfter: run.triggerAfter
        case .eventPages: Double(run.eventPages)
        case .minSpacing: run.minSpacing
        case .maxRounds: Double(run.maxRounds)
        case .roundInterval: run.roundInterval
        case .downtimeLimit: run.downtimeLimit
        case .technique, .workload, .handover, .events: nil
        }
    }

    /// As a plan writes it; nil: it is not set.
    func text(_ run: RunParameters) -> String? {
        switch self {
        case .technique: run.technique.rawValue
        case .workload: run.workload.rawValue
        case .memory: "\(ByteCount(run.memory))".filter { $0 != " " }
        case .bandwidth: "\(run.bandwidth)"
        case .lambda: run.lambda.map(plain)
        case .dirtyRate: run.dirtyRate.map { "\(ByteCount($0))".filter { $0 != " " } }
        case .workingSet: String(run.workingSet)
        case .share: String(run.share)
        case .handover: run.handover.rawValue
        case .triggerAfter: run.handover == .atTrigger ? plain(run.triggerAfter) : nil
        case .events: run.events.rawValue
        case .eventPages: String(run.eventPages)
        case .minSpacing: run.minSpacing.map(plain) ?? "auto"
        case .maxRounds: String(run.maxRounds)
        case .roundInterval: run.roundInterval.map(plain) ?? "none"
        case .downtimeLimit: plain(run.downtimeLimit)
        }
    }

    /// Reads a value into a run's parameters.
    func read(_ value: YAMLValue, into run: inout RunParameters) throws {
        switch self {
        case .technique:
            run.technique = try value.choice(Technique.allCases.map(\.rawValue)) { Technique(name: $0) }
        case .workload:
            run.workload = try value.choice(WorkloadKind.allCases.map(\.rawValue)) { WorkloadKind(rawValue: $0) }
        case .memory: run.memory = try bytes(value, atLeast: 1 << 20)
        case .bandwidth:
            run.bandwidth = try value.choice(["a rate such as 100mbit or 1gbit", "unlimited"]) { LinkRate($0) }
        case .lambda:
            run.lambda = try value.number(0...10, "dirty rate over bandwidth")
            run.dirtyRate = nil
        case .dirtyRate:
            run.dirtyRate = try value.text() == "0" ? 0 : bytes(value, atLeast: 4096)
            run.lambda = nil
        case .workingSet: run.workingSet = try value.integer(1...100, "percent")
        case .share: run.share = try value.integer(1...100, "percent")
        case .handover:
            run.handover = try value.choice(HandoverPolicy.allCases.map(\.rawValue)) { HandoverPolicy(rawValue: $0) }
        case .triggerAfter: run.triggerAfter = try value.number(0...3600, "seconds")
        case .events:
            run.events = try value.choice(EventSource.allCases.map(\.rawValue)) { EventSource(rawValue: $0) }
        case .eventPages: run.eventPages = try value.integer(1...1_000_000, "pages")
        case .minSpacing:
            run.minSpacing = try value.text() == "auto" ? nil : value.number(0...60_000, "milliseconds")
        case .maxRounds: run.maxRounds = try value.integer(1...1000, "rounds")
        case .roundInterval:
            run.roundInterval = try value.text() == "none" ? nil : value.number(0...3_600_000, "milliseconds")
        case .downtimeLimit: run.downtimeLimit = try value.number(0.001...3_600_000, "milliseconds")
        }
    }

    private func bytes(_ value: YAMLValue, atLeast least: UInt64) throws -> UInt64 {
        guard let count = ByteCount(try value.text()), count.bytes >= least else {
            throw value.mistake(
                "\"\(try value.text())\" is not a size of at least \(ByteCount(least)): 4KiB, 128MiB, 1GiB ...")
        }
        return count.bytes
    }
}

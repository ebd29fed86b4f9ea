// What an evaluation runs: experiments that vary parameters around a base, each technique, many times.
import FoundationEssentials
import LinuxKernel
import Migration
import Testbed

/// A plan, read from YAML. docs/evaluation.md describes the file.
public struct EvaluationPlan: Sendable {
    public var name: String
    public var title: String
    /// Runs a point.
    public var repetitions: Int
    /// In how many parts the repetitions are made, at least an hour apart.
    public var blocks = 1
    /// Of the order of the runs.
    public var seed: UInt64
    /// Seconds between the workload's steady state and the decision.
    public var settle: Double
    /// The testbed's file; nil: two edge hosts and a user device.
    public var topology: String?
    public var experiments: [Experiment]
    /// The file's text.
    public var source: String

    /// Points that answer one question.
    public struct Experiment: Sendable {
        public var name: String
        public var title: String
        /// What is varied, the first one along the x axis.
        public var varied: [Parameter]
        public var repetitions: Int
        /// Every combination of the varied values and the techniques.
        public var points: [RunParameters]
    }

    /// Every point with its repetitions: a point of several experiments once, with the most that any of them wants.
    public var points: [(parameters: RunParameters, repetitions: Int)] {
        var order: [RunParameters] = []
        var wanted: [RunParameters: Int] = [:]
        for experiment in experiments {
            for point in experiment.points {
                if wanted[point] == nil { order.append(point) }
                wanted[point] = max(wanted[point] ?? 0, experiment.repetitions)
            }
        }
        return order.map { ($0, wanted[$0]!) }
    }
}

/// One run of a plan: a point, for the how-many-th time (from 1).
public struct PlannedRun: Hashable, Sendable {
    public var parameters: RunParameters
    public var repetition: Int
    /// The block that it belongs to, from 1: repetitions that are made together, with agents and a testbed of their
    /// own, an hour or more from other blocks. What a machine does for an hour meets a part of a point's runs only.
    public var block = 1

    /// Its name in the store.
    var name: String { "\(parameters.key) #\(repetition)" }
}

extension EvaluationPlan {
    /// Hours that all runs take, about.
    public var hours: Double { runs.reduce(0) { $0 + $1.parameters.runTime(settle: settle) } / 3600 }
}

extension EvaluationPlan {
    /// Every run in the order in which they are made: each repetition goes over all points, shuffled anew, so that
    /// whatever the machine does meanwhile meets all points alike. The same seed gives the same order.
    public var runs: [PlannedRun] {
        var random = SeededRandom(seed: seed)
        let points = points
        let most = points.map(\.repetitions).max() ?? 1
        return (1...max(1, most)).flatMap { repetition in
            var runs: [PlannedRun] = []
            for point in points where point.repetitions >= repetition {
                let block = (repetition - 1) * blocks / max(point.repetitions, blocks) + 1
                runs.append(PlannedRun(parameters: point.parameters, repetition: repetition, block: block))
            }
            return runs.shuffled(using: &random)
        }
    }
}

extension EvaluationPlan {
    public init(file: String) throws {
        let text: String
        do { text = try SmallFile.text(file) } catch {
            throw InputError(file: file, line: nil, reason: "cannot be read: \(error)")
        }
        try self.init(text, file: file)
    }

    /// - Parameter file: its name, for mistakes.
    public init(_ text: String, file: String) throws {
        let root = try YAMLValue.root(text, file: file)
        var (name, title, seed, settle): (String?, String?, UInt64, Double) = (nil, nil, 1, 1)
        var repetitions = 20
        var base = RunParameters()
        var techniques = EvaluatedTechnique.engines
        var list: YAMLValue?
        let known = [
            "name", "title", "repetitions", "blocks", "seed", "settle", "topology", "techniques", "base", "experiments",
        ]
        for (key, value) in try root.entries(known: known) {
            switch key {
            case "name": name = try Self.name(value)
            case "title": title = try value.text()
            case "repetitions": repetitions = try value.integer(1...10_000, "runs a point")
            case "blocks": blocks = try value.integer(1...100, "blocks")
            case "seed": seed = UInt64(try value.integer(0...Int.max, "seed"))
            case "settle": settle = try value.number(0...600, "seconds")
            case "topology": topology = try value.text()
            case "techniques": techniques = try Self.techniques(value)
            case "base": try Self.read(value, into: &base)
            default: list = value
            }
        }
        guard let name else { throw root.mistake("name is missing") }
        guard let list else { throw root.mistake("experiments is missing") }
        (self.name, self.title, self.seed, self.settle) = (name, title ?? name, seed, settle)
        self.repetitions = repetitions
        source = text
        experiments = try list.items().map {
            try Experiment($0, base: base, techniques: techniques, repetitions: repetitions)
        }
        if topology == nil, points.contains(where: { $0.parameters.mobility != nil }) {
            throw root.mistake("users move among access points: \"topology\" names the file that has them")
        }
        var names: Set<String> = []
        for experiment in experiments where !names.insert(experiment.name).inserted {
            throw list.mistake("two experiments are called \"\(experiment.name)\"")
        }
    }

    fileprivate static func name(_ value: YAMLValue) throws -> String {
        let text = try value.text()
        guard text.utf8.allSatisfy({ (48...57).contains($0) || (97...122).contains($0 | 32) || $0 == 45 }),
            text.utf8.count <= 40
        else { throw value.mistake("\"\(text)\": a name has letters, digits and hyphens, at most 40") }
        return text
    }

    fileprivate static func techniques(_ value: YAMLValue) throws -> [EvaluatedTechnique] {
        try value.items().map { item in
            try item.choice(EvaluatedTechnique.allCases.map(\.name)) { EvaluatedTechnique(name: $0) }
        }
    }

    fileprivate static func read(_ value: YAMLValue, into run: inout RunParameters) throws {
        for (key, value) in try value.entries(known: Parameter.allCases.map(\.rawValue)) {
            try Parameter(rawValue: key)!.read(value, into: &run)
        }
    }
}

extension EvaluationPlan.Experiment {
    fileprivate init(_ value: YAMLValue, base: RunParameters, techniques: [EvaluatedTechnique], repetitions: Int) throws
    {
        var (name, title): (String?, String?) = (nil, nil)
        var (base, techniques, repetitions) = (base, techniques, repetitions)
        var vary: YAMLValue?
        for (key, value) in try value.entries(
            known: ["name", "title", "techniques", "repetitions", "set", "vary"])
        {
            switch key {
            case "name": name = try EvaluationPlan.name(value)
            case "title": title = try value.text()
            case "techniques": techniques = try EvaluationPlan.techniques(value)
            case "repetitions": repetitions = try value.integer(1...10_000, "runs a point")
            case "set": try EvaluationPlan.read(value, into: &base)
            default: vary = value
            }
        }
        guard let name else { throw value.mistake("name is missing") }
        var points = [base]
        var varied: [Parameter] = []
        if let vary {
            let known = Parameter.allCases.filter { $0 != .technique }.map(\.rawValue)
            for (key, list) in try vary.entries(known: known) {
                let parameter = Parameter(rawValue: key)!
                varied.append(parameter)
                let values = try list.items()
                points = try points.flatMap { point in
                    try values.map { value in
                        var point = point
                        try parameter.read(value, into: &point)
                        return point
                    }
                }
            }
        }
        if let mistake = points.lazy.compactMap(\.backhaul.mistake).first {
            throw value.mistake("the backhaul has \(mistake)")
        }
        for point in points where point.mobility != nil && point.workload == .dirtier {
            throw value.mistake("nobody uses a dirtier on the way: mobility needs another workload")
        }
        for point in points where point.workload == .dirtier && point.lambda ?? 0 > 0 && point.bandwidth == .unlimited {
            throw value.mistake("lambda has no meaning on an unlimited link: give dirty-rate instead")
        }
        for point in points {
            if let rate = point.rate, let fastest = point.workload.fastestRate, rate > fastest {
                throw value.mistake("\(point.workload.rawValue): a rate of at most \(plain(fastest)) a second")
            }
        }
        points = points.flatMap { point in
            techniques.map { technique in
                var point = point
                point.technique = technique
                return point.normalised
            }
        }
        var seen: Set<RunParameters> = []
        // A key is no heading.
        let words = name.replacing("-", with: " ")
        self.title = title ?? words.prefix(1).uppercased() + words.dropFirst()
        (self.name, self.varied, self.repetitions) = (name, varied, repetitions)
        self.points = points.filter { seen.insert($0).inserted }
    }
}

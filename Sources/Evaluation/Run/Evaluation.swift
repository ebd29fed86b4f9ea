// Runs a plan: a testbed, then run after run, each kept when it has ended. What was made before is not made again.
import Agent
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration
import Testbed

public struct Evaluation: Sendable {
    public struct Options: Sendable {
        public var instance = "evaluate"
        /// The folder of the workloads' programs.
        public var programs = ".build/workloads"
        /// The program whose agents are started; nil: the running one.
        public var agentProgram: String?
        /// No run begins later than this many seconds after the start; nil: all are made.
        public var timeLimit: Double?
        /// Make those runs again that failed.
        public var retryFailed = false
        public init() {}
    }

    /// What was made of the plan.
    public struct Summary: Sendable {
        public var made = 0
        public var failed = 0
        /// Runs that are still to be made.
        public var left = 0
        /// What remained on the machine; empty: nothing.
        public var leftovers: [String] = []
    }

    let plan: EvaluationPlan
    let store: ResultStore
    let options: Options
    let progress: @Sendable (String) -> Void

    public init(
        _ plan: EvaluationPlan, store: ResultStore, options: Options, progress: @escaping @Sendable (String) -> Void
    ) {
        (self.plan, self.store, self.options, self.progress) = (plan, store, options, progress)
    }

    /// - Throws: when nothing can be run at all. What goes wrong in a run is kept with it.
    public func run() async throws -> Summary {
        for name in Set(plan.points.map(\.parameters.workload)).flatMap(\.programs) {
            let program = "\(options.programs)/\(name)"
            guard access(program, X_OK) == 0 else { throw TestbedError("\(program) is missing: `make build` makes it") }
        }
        try checkMachines()
        // Mistakes in a trace are told before anything is made.
        for trace in Set(plan.points.map(\.parameters).filter { $0.mobility != nil }.map(\.trace))
        where trace != RunParameters.grid { _ = try MobilityTrace.read(trace) }
        try store.register(plan)
        let (available, leftOut) = try techniques()
        for reason in leftOut { progress("left out: \(reason)") }
        let made = try store.made(passed: options.retryFailed)
        let wanted = plan.runs.filter { available.contains($0.parameters.technique) }
        let left = wanted.filter { !made.contains($0.name) }
        var summary = Summary(left: left.count)
        progress("\(plan.name): \(wanted.count) runs, \(wanted.count - left.count) of them made before")
        guard let block = left.first?.block else { return summary }
        if block > 1, let seconds = try store.secondsSince(block: block - 1), seconds < Self.betweenBlocks {
            progress(
                "block \(block) of \(plan.blocks) may begin in \(Self.duration(Self.betweenBlocks - seconds)): an hour lies between two"
            )
            return summary
        }
        // The next block gets agents and a testbed of its own, by another start.
        let runs = left.filter { $0.block == block }
        let loadBefore = try SmallFile.text("/proc/loadavg").split(separator: " ").prefix(3).joined(separator: " ")
        let testbeds = try [false, true].map { try EvaluationBed.testbed(plan, options, emulated: $0) }
        let teardown = try Teardown { for testbed in testbeds { testbed.down() } }
        // Reached on every way out; the teardown does it for signals.
        defer { teardown.finish() }
        let beds = testbeds.map { EvaluationBed($0, plan, options, teardown) }
        try await beds[0].up()
        let session = try store.beginSession(
            SessionRecord(
                machine: try await beds[0].machine(), runtime: beds[0].runtime,
                program: try Machine.digest(ofProgram: options.agentProgram ?? "/proc/self/exe"),
                load: loadBefore, leftOut: leftOut))
        let begin = monotonicNow()
        for (index, planned) in runs.enumerated() {
            let elapsed = Double(monotonicNow() - begin) / 1e9
            if let limit = options.timeLimit, elapsed > limit, index > 0 {
                progress("the time is up; \(runs.count - index) runs are left for next time")
                break
            }
            let bed = beds[planned.parameters.backhaul.isRateOnly ? 0 : 1]
            let record = try await bed.make(planned, settle: plan.settle)
            try store.add(record, session: session)
            summary.made += 1
            summary.left -= 1
            if !record.passed { summary.failed += 1 }
            progress(line(index + 1, of: runs.count, record, elapsed: Double(monotonicNow() - begin) / 1e9))
        }
        teardown.finish()
        summary.leftovers = testbeds.flatMap { $0.leftovers() }
        return summary
    }

    /// Seconds.
    private static let betweenBlocks = 3600.0

    private func hasMachines() throws -> Bool { try plan.topology.map { try Topology(file: $0).hasMachines } ?? false }

    /// Of real machines nothing is changed, so a plan for them may not ask for it.
    private func checkMachines() throws {
        guard try hasMachines() else { return }
        let points = plan.points.map(\.parameters)
        if points.contains(where: { $0.mobility != nil }) {
            throw TestbedError(
                "the topology's hosts are real machines: users cannot be made to move among their access points")
        }
        if points.contains(where: { !$0.backhaul.isRateOnly }) || Set(points.map(\.bandwidth)).count > 1 {
            throw TestbedError(
                "the topology's hosts are real machines, whose links are left alone: no rtt, jitter or loss, and one bandwidth,"
                    + " that which their line has")
        }
    }

    /// The plan's techniques that this machine has, and why it lacks the others.
    private func techniques() throws -> (available: Set<EvaluatedTechnique>, leftOut: [String]) {
        var (available, leftOut): (Set<EvaluatedTechnique>, [String]) = ([], [])
        let hasMachines = try hasMachines()
        for technique in plan.points.map(\.parameters.technique).uniqued {
            if technique.isCRIU && hasMachines {
                leftOut.append("\(technique.name): made between hosts of one machine only")
            } else if let obstacle = technique.obstacle() {
                leftOut.append("\(technique.name): \(obstacle)")
            } else {
                available.insert(technique)
            }
        }
        return (available, leftOut)
    }

    private func line(_ number: Int, of count: Int, _ record: RunRecord, elapsed: Double) -> String {
        let point = record.planned.parameters
        var text = "\(number)/\(count) \(point.technique.name) \(point.workload.rawValue) \(ByteCount(point.memory))"
        if let strategy = point.mobility { text += " \(strategy.rawValue)" }
        if point.containers > 1 { text += " × \(point.containers)" }
        text += " \(point.bandwidth)"
        if let lambda = point.effectiveLambda { text += " λ \((lambda * 1000).rounded() / 1000)" }
        text += " #\(record.planned.repetition): "
        let reports = record.moves.compactMap(\.report)
        if record.passed, let mobility = record.mobility {
            text += mobility.words
        } else if record.passed, let downtime = reports.map(\.engineDowntime).max(),
            let time = reports.map(\.migrationTime).max()
        {
            text += "downtime \((downtime * 100).rounded() / 100) ms, \(Int(time)) ms in all"
        } else {
            text += "FAILED: \(record.problem ?? "?")"
        }
        let left = elapsed / Double(number) * Double(count - number)
        return text + " · \(Self.duration(left)) left"
    }
    static func duration(_ seconds: Double) -> String {
        let seconds = Int(seconds.rounded())
        return seconds < 60
            ? "\(seconds) s" : seconds < 3600 ? "\(seconds / 60) min" : "\(seconds / 3600) h \(seconds / 60 % 60) min"
    }
}

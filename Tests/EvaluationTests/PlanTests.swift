import Testbed
import Testing

@testable import Evaluation

struct PlanTests {
    static let plan = """
        name: small
        repetitions: 3
        seed: 9
        techniques: [pre-copy, migrror]
        base:
          memory: 32MiB
          lambda: 0.2
        experiments:
          - name: size
            vary:
              memory: [16MiB, 32MiB]
          - name: rate
            techniques: [migrror]
            repetitions: 5
            vary: {lambda: [0.2, 0.4]}
        """

    @Test func everyCombinationIsAPoint() throws {
        let plan = try EvaluationPlan(Self.plan, file: "p.yaml")
        #expect(plan.experiments[0].points.count == 4 && plan.experiments[1].points.count == 2)
        #expect(plan.experiments[0].varied == [.memory])
        // MiGrror at 32 MiB and λ 0.2 is in both experiments: once, as often as the one that wants most.
        #expect(plan.points.count == 5)
        let shared = try #require(
            plan.points.first {
                $0.parameters.technique == .migrror && $0.parameters.memory == 32 << 20 && $0.parameters.lambda == 0.2
            })
        #expect(shared.repetitions == 5)
        #expect(plan.runs.count == 3 * 3 + 5 * 2)
    }

    @Test func baselineIsMeasuredWhereAPlanNamesIt() throws {
        func techniques(_ line: String) throws -> [EvaluatedTechnique] {
            try EvaluationPlan("name: x\nexperiments:\n  - name: y\n\(line)", file: "p.yaml")
                .experiments[0].points.map(\.technique)
        }
        #expect(try techniques("    techniques: [criu-cold, cold]") == [.criuCold, .cold])
        #expect(try techniques("    techniques: [criu-pre-copy, criu-migrror]") == [.criu(.preCopy), .criu(.migrror)])
        #expect(try techniques("") == [.cold, .preCopy, .migrror])
    }

    @Test func orderIsShuffledBySeed() throws {
        let plan = try EvaluationPlan(Self.plan, file: "p.yaml")
        #expect(plan.runs == plan.runs)
        #expect(Set(plan.runs).count == plan.runs.count)
        var other = plan
        other.seed = 10
        #expect(other.runs != plan.runs)
        #expect(
            plan.runs.map(\.repetition) == plan.runs.map(\.repetition).sorted(), "a repetition goes over all points")
    }

    @Test func whatDoesNotMatterDoesNotDistinguish() {
        var (a, b) = (RunParameters(), RunParameters())
        (a.technique, b.technique) = (.preCopy, .preCopy)
        b.eventPages = 64
        #expect(a.normalised == b.normalised)
        b.maxRounds = 3
        #expect(a.normalised != b.normalised)
    }

    @Test func parametersReachTheWorkload() throws {
        func run(_ set: String) throws -> RunParameters {
            try EvaluationPlan("name: x\nexperiments: [{name: a, techniques: [cold], set: {\(set)}}]", file: "p.yaml")
                .points[0].parameters
        }
        let dirtier = try run("profile: sine, profile-period: 0.5, write-size: 64KiB, mix: c, rate: 7").workloadOptions
        #expect(dirtier.profile == .sine && dirtier.profilePeriod == 0.5 && dirtier.writeSize == 65536)
        #expect(dirtier.mix == .a && dirtier.rate == nil, "means nothing to a dirtier")
        let store = try run("workload: ycsb-memcached, mix: c, distribution: uniform, rate: 2500, profile: sine")
        let options = store.workloadOptions
        #expect(options.mix == .c && options.distribution == .uniform && options.rate == 2500)
        #expect(options.profile == .constant && store.key.contains("mix=c") && !store.key.contains("profile"))
    }

    /// λ = 0.1 of 1 Gbit/s: 12.5 MB/s, 3,051 whole pages.
    @Test func lambdaMakesARate() {
        var run = RunParameters()
        run.lambda = 0.1
        #expect(run.pagesPerSecond == 3051)
        run.dirtyRate = 40960
        #expect(run.pagesPerSecond == 10)
        // Of all containers together: each has its part.
        run.containers = 2
        #expect(run.workloadOptions.dirtyRate == 5)
    }

    @Test(arguments: [
        ("name: x\nexperiments:\n  - name: a\n    vary:\n      memroy: [1MiB]", 5, "\"memroy\" is not known here"),
        ("name: x\nexperiments:\n  - name: a\n    vary:\n      memory: [lots]", 5, "\"lots\" is not a size"),
        ("name: x\nrepetitions: 0\nexperiments: [{name: a}]", 2, "not a whole number of runs a point from 1"),
        ("name: x\ntechniques: [warp]\nexperiments: [{name: a}]", 2, "\"warp\" is none of cold, pre-copy, MiGrror"),
        ("name: x\nname: y\nexperiments: [{name: a}]", 1, "twice"),
        ("name: a b\nexperiments: [{name: a}]", 1, "letters, digits and hyphens"),
        ("experiments: [{name: a}]", 1, "name is missing"),
        ("name: x\nexperiments: [{name: a}, {name: a}]", 2, "two experiments"),
        ("name: x\nexperiments: []", 2, "expected a list"),
        ("name: [\n", 2, "no YAML"),
        ("name: x\nexperiments:\n  - {name: a, set: {rtt: 2, jitter: 3}}", 3, "jitter of 3 ms"),
        (
            "name: x\nbase: {workload: redis, mobility: proactive}\nexperiments: [{name: a}]", 1,
            "users move among access points"
        ),
        (
            "name: x\ntopology: t\nexperiments:\n  - {name: a, set: {mobility: reactive}}", 4,
            "nobody uses a dirtier"
        ),
        ("name: x\nbase: {mobility: sideways}\nexperiments: [{name: a}]", 2, "none of off, none, reactive"),
        ("name: x\nexperiments:\n  - {name: a, set: {write-size: 5KiB}}", 3, "whole pages"),
        ("name: x\nexperiments:\n  - {name: a, set: {profile: waves}}", 3, "none of constant, square, sine, bursts"),
        ("name: x\nexperiments:\n  - {name: a, set: {workload: ar, rate: 241}}", 3, "ar: a rate of at most 240"),
        ("name: x\nbase: {bandwidth: unlimited}\nexperiments:\n  - name: a", 4, "lambda has no meaning"),
    ])
    func mistakesNameTheirLine(text: String, line: Int, reason: String) throws {
        let error = try #require(throws: InputError.self) { try EvaluationPlan(text, file: "p.yaml") }
        #expect(error.line == line)
        #expect(error.reason.contains(reason))
        #expect(error.description.hasPrefix("p.yaml:\(line): "))
    }

    @Test func theRoundTripIsHalfADelayEachWay() throws {
        let plan = try EvaluationPlan(
            "name: x\nexperiments: [{name: a, techniques: [cold], set: {rtt: 10, loss: 1}}]", file: "p.yaml")
        let backhaul = plan.points[0].parameters.backhaul
        #expect(backhaul.delay == 5 && backhaul.loss == 1 && backhaul.jitter == 0 && !backhaul.isRateOnly)
        #expect(RunParameters().backhaul.isRateOnly)
    }

    /// Where services stay no technique is at work, so one point stands for all; the handover follows from the
    /// strategy.
    @Test func strategiesMakePoints() throws {
        let plan = try EvaluationPlan(
            """
            name: x
            topology: t
            base: {workload: redis, users: 2, trigger-after: 9}
            experiments:
              - name: a
                vary: {mobility: ["off", none, reactive, proactive]}
            """, file: "p.yaml")
        let keys = plan.points.map(\.parameters.key)
        #expect(keys.count == 3 + 1 + 3 + 3)
        #expect(keys.filter { $0.contains("mobility=none") }.count == 1)
        #expect(
            plan.points.map(\.parameters).filter { $0.handover == .atTrigger }.allSatisfy { $0.mobility == .proactive })
        #expect(keys.filter { $0.contains("users=2") }.count == 7, "\(keys)")
        #expect(!keys.contains { $0.contains("trigger-after") })
    }

    @Test func missingFileIsNamed() throws {
        let error = try #require(throws: InputError.self) { try EvaluationPlan(file: "/nowhere/plan.yaml") }
        #expect(error.description.contains("/nowhere/plan.yaml") && error.line == nil)
    }

    @Test(arguments: [
        "quick", "ablation", "literature", "frontier", "services", "applications", "paper", "sensitivity",
        "microservices", "mobility", "massive", "criu",
    ])
    func shippedPlansAreRead(name: String) throws {
        let plan = try EvaluationPlan(file: "Plans/\(name).yaml")
        #expect(plan.name == name && plan.runs.count > 10)
    }
}

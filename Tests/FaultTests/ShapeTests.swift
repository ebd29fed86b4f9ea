// Programs of random shapes move between two hosts: each is carried exactly, or named before it is stopped.
//
// `APUS_SHAPES` is how many seconds it lasts, `APUS_SHAPES_COUNT` how many shapes instead, `APUS_SHAPES_SEED` the first seed;
// `APUS_SHAPE="SEED KIND,KIND"` runs one shape alone, as a failure prints it.
import Agent
import Containers
import Foundation
import Glibc
import LinuxKernel
import Migration
import Synchronization
import Testing

@testable import Testbed

private func setting(_ name: String) -> String? { ProcessInfo.processInfo.environment[name] }
private let seconds = setting("APUS_SHAPES").flatMap(Double.init) ?? 240
private let count = setting("APUS_SHAPES_COUNT").flatMap(Int.init)
private let seed = setting("APUS_SHAPES_SEED").flatMap(UInt64.init) ?? UInt64.random(in: 0...999_999)
private let minutesAtMost = 5 + (count.map { $0 / 4 } ?? Int(seconds / 30))

/// The kinds that the program knows, with what a migration says of those that are not carried.
private func listKinds() throws -> (carried: [String], refused: [String: String]) {
    var carried: [String] = [], refused: [String: String] = [:]
    for line in try Subprocess.run(["\(workloads)/shapes", "kinds"]).text.split(separator: "\n") {
        let fields = line.split(separator: "\t").map(String.init)
        if fields.count == 2 { refused[fields[0]] = fields[1] } else { carried.append(fields[0]) }
    }
    return (carried, refused)
}

@Suite struct ShapeGeneratorTests {
    private let kinds = (0..<19).map { "kind\($0)" }

    @Test func everyPairMeetsWithinFortyShapes() {
        for seed in 0..<50 as Range<UInt64> {
            var generator = ShapeGenerator(seed: seed, kinds: kinds, refused: ["no"])
            for _ in 0..<40 { _ = generator.next() }
            #expect(generator.isComplete, "seed \(seed)")
        }
    }

    @Test func aShapeHasThreeToSixDifferentKinds() {
        var generator = ShapeGenerator(seed: 7, kinds: kinds, refused: ["no"])
        for _ in 0..<300 {
            let shape = generator.next()
            #expect((3...6).contains(shape.kinds.count) && Set(shape.kinds).count == shape.kinds.count)
            #expect((shape.refused == nil) == (shape.number % 4 != 0))
        }
    }

    @Test func aSeedRepeatsItsShapes() {
        let shapes = { (seed: UInt64) in
            var generator = ShapeGenerator(seed: seed, kinds: kinds, refused: ["no", "never"])
            return (0..<50).map { _ in generator.next().description }
        }
        #expect(shapes(3) == shapes(3))
        #expect(shapes(3) != shapes(4))
    }
}

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(minutesAtMost)))
struct ShapeTests {
    @Test func everyShapeIsCarriedExactlyOrNamedBeforeItStops() async throws {
        let testbed = try TestbedHosts("sh")
        defer { testbed.tearDown() }
        let hosts = testbed.hosts
        try await testbed.start()

        let kinds = try listKinds()
        let shapes = ShapeSource(
            ShapeGenerator(seed: seed, kinds: kinds.carried, refused: kinds.refused.keys.sorted()))
        let runner = ShapeRunner(hosts, refusals: kinds.refused)
        // While one waits for a link or its program, the others have the processors.
        await withTaskGroup(of: Void.self) { group in
            for worker in 0..<4 { group.addTask { await runner.run(shapes, as: worker) } }
        }
        print("shapes, seed \(seed): \(shapes.summary), \(runner.summary)")
        #expect(runner.failures == [])
        if setting("APUS_SHAPE") == nil, count ?? Int(seconds) >= 120 {
            #expect(shapes.isComplete, "not every pair of kinds has met: \(shapes.summary)")
        }
    }
}

/// Hands out shapes until the time is over.
private final class ShapeSource: Sendable {
    private let state: Mutex<(generator: ShapeGenerator, left: Int)>
    private let start = monotonicNow()

    init(_ generator: ShapeGenerator) { state = Mutex((generator, setting("APUS_SHAPE") == nil ? count ?? .max : 1)) }

    func next() -> Shape? {
        state.withLock { state in
            guard state.left > 0, !isOver(state.generator) else { return nil }
            state.left -= 1
            if let alone = setting("APUS_SHAPE") { return Self.shape(alone) }
            return state.generator.next()
        }
    }

    /// A run that is long enough for it goes on until each pair of kinds has met: a busy machine takes longer.
    private func isOver(_ generator: ShapeGenerator) -> Bool {
        guard count == nil else { return false }
        let elapsed = Double(monotonicNow() - start) / 1e9
        return elapsed > seconds && (generator.isComplete || seconds < 120 || elapsed > 2 * seconds)
    }

    private static func shape(_ text: String) -> Shape? {
        let fields = text.split(separator: " ")
        guard fields.count == 2, let seed = UInt64(fields[0]), let known = try? listKinds() else { return nil }
        let kinds = fields[1].split(separator: ",").map(String.init)
        return Shape(
            number: 1, seed: seed, kinds: kinds.filter { known.refused[$0] == nil },
            refused: kinds.first { known.refused[$0] != nil })
    }

    var isComplete: Bool { state.withLock { $0.generator.isComplete } }
    var summary: String {
        state.withLock { "\($0.generator.met.count) pairs of kinds met" }
    }
}

/// Runs shapes on two hosts and judges what becomes of them.
private final class ShapeRunner: Sendable {
    // Its hosts' agents are started before and ended after all of this; everything else of them is read only.
    private nonisolated(unsafe) let hosts: FaultHosts
    private let refusals: [String: String]
    private let state = Mutex((failures: [String](), shapes: 0, moves: 0, refusals: 0))

    init(_ hosts: FaultHosts, refusals: [String: String]) { (self.hosts, self.refusals) = (hosts, refusals) }

    var failures: [String] { state.withLock { $0.failures } }
    var summary: String {
        state.withLock { "\($0.shapes) shapes, \($0.moves) moves, \($0.refusals) refused by name" }
    }

    func run(_ shapes: ShapeSource, as worker: Int) async {
        while let shape = shapes.next() {
            let name = "shape\(shape.number)"
            do {
                try await run(shape, name, worker)
            } catch {
                let words = "APUS_SHAPE=\"\(shape)\": \(error)"
                print("shape \(shape.number) failed: \(words)")
                state.withLock { $0.failures.append(words) }
            }
            for host in [hosts.a, hosts.b] { try? await host.client.remove(name, force: true) }
            state.withLock { $0.shapes += 1 }
        }
    }

    private func run(_ shape: Shape, _ name: String, _ worker: Int) async throws {
        try await start(shape, name, worker)
        if let refused = shape.refused { try await expectRefusal(refusals[refused]!, name) }
        var source = hosts.a, destination = hosts.b
        for hop in 0..<3 {
            let technique = Technique.allCases[(shape.number + hop) % Technique.allCases.count]
            let what = "move \(hop + 1) by \(technique)"
            let id = try await source.client.migrate(
                name, to: destination.name, plan: MigrationPlan(technique: technique))
            let end = try await source.client.wait(for: id, every: .milliseconds(20))
            if let error = end.error { throw Wrong("\(what): \(error.message); \(words(name, source))") }
            try await expectTicks(name, on: destination, what)
            try #require(destination.runs(name) && !source.runs(name), "\(what): it does not run there alone")
            state.withLock { $0.moves += 1 }
            (source, destination) = (destination, source)
        }
        try await source.client.remove(name, force: true)
        let left = [hosts.a, hosts.b].flatMap { host in
            host.leftovers(of: name, holds: false).filter { $0.contains(name) }
        }
        if !left.isEmpty { throw Wrong("left behind: \(left)") }
    }

    private func start(_ shape: Shape, _ name: String, _ worker: Int) async throws {
        let path = "\(workloads)/shapes", bundle = "\(hosts.folder)/bundle-\(name)"
        var builder = BundleBuilder(
            programs: [path],
            arguments: [path, "\(shape.seed)", "/data,/scratch", shape.allKinds.joined(separator: ",")])
        builder.temporaryFileSystems = ["/scratch": 16 << 20]
        builder.folders = ["/data"]
        builder.workingDirectory = "/data"
        builder.capabilities += ["CAP_SETUID", "CAP_SETGID"]
        try builder.build(in: bundle)
        defer { try? FileManager.default.removeItem(atPath: bundle) }
        let needsNetwork =
            !Set(shape.kinds).isDisjoint(with: ["tcp", "own-tcp", "udp"])
            || ["half-closed", "mute"].contains(shape.refused)
        let network = RunRequest.Network(
            mac: "02:42:0a:4e:00:\(10 + worker)", addresses: ["10.78.0.\(10 + worker)/24"])
        _ = try await hosts.a.client.run(
            RunRequest(name: name, bundle: bundle, network: needsNetwork ? network : nil))
        try await wait(seconds: 20) { [self] in log(name, hosts.a).contains("\"ready\"") }
        try await expectTicks(name, on: hosts.a, "at the start")
    }

    /// It is named before anything is made at the destination, by `inspect` as by `migrate`; the program runs on and
    /// can be moved once it has given that up.
    private func expectRefusal(_ word: String, _ name: String) async throws {
        let found = try await hosts.a.client.inspect(name).obstacles.map(\.sentence)
        if !found.contains(where: { $0.contains(word) }) { throw Wrong("inspect does not say \"\(word)\": \(found)") }
        let states = Mutex<Set<SessionState>>([])
        let id = try await hosts.a.client.migrate(
            name, to: hosts.b.name, plan: MigrationPlan(technique: .migrror))
        let end = try await hosts.a.client.wait(for: id, every: .milliseconds(2)) { info in
            states.withLock { _ = $0.insert(info.progress.state) }
        }
        guard let error = end.error, error.code == .refused, error.message.contains(word) else {
            throw Wrong("not refused with \"\(word)\": \(end.error?.message ?? "it moved")")
        }
        if states.withLock({ $0.contains(.staged) || $0.contains(.copying) }) {
            throw Wrong("refused late, after it had been staged: \(error.message)")
        }
        try await expectTicks(name, on: hosts.a, "after the refusal")
        let traces = hosts.a.processes(of: name).flatMap { FaultHost.traces(in: $0) }
        if !traces.isEmpty { throw Wrong("the refusal left \(traces)") }
        try await hosts.a.client.kill(name, signal: SIGUSR1)
        try await wait(seconds: 20) { [self] in log(name, hosts.a).contains("gave up") }
        state.withLock { $0.refusals += 1 }
    }

    /// Every kind is checked twice from now on, and found right.
    private func expectTicks(_ name: String, on host: FaultHost, _ when: String) async throws {
        let before = ticks(name, host)
        try await wait(seconds: 40) { [self] in
            ticks(name, host) >= before + 2 || host.processes(of: name).isEmpty
        }
        if ticks(name, host) < before + 2 || log(name, host).contains("WRONG") {
            throw Wrong("\(when): \(words(name, host))")
        }
    }

    private func log(_ name: String, _ host: FaultHost) -> String {
        (try? host.layout.container(name)).flatMap { try? SmallFile.text($0.log) } ?? ""
    }
    private func ticks(_ name: String, _ host: FaultHost) -> Int {
        let last = log(name, host).split(separator: "\n").last { $0.hasPrefix("tick ") }
        return last.flatMap { Int($0.split(separator: " ")[1]) } ?? 0
    }
    /// How its log ends.
    private func words(_ name: String, _ host: FaultHost) -> String {
        let lines = log(name, host).split(separator: "\n")
        let wrong = lines.first { $0.hasPrefix("WRONG") }
        return wrong.map(String.init) ?? "it says: \(lines.suffix(2).joined(separator: " | "))"
    }
}

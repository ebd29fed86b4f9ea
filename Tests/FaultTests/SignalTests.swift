// Signals that are sent to a container while it moves: none that was acknowledged is lost, none comes twice.
import Agent
import CLinux
import Glibc
import LinuxKernel
import Migration
import Synchronization
import Testing

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(2)))
struct SignalTests {
    private final class Flag: Sendable {
        private let value = Atomic(false)
        var isSet: Bool { value.load(ordering: .relaxed) }
        func set() { value.store(true, ordering: .relaxed) }
    }

    private func counts(_ host: FaultHost, _ hosts: FaultHosts) -> String {
        hosts.log(host).split(separator: "\n").last.map(String.init) ?? ""
    }

    /// `apus kill` at the host that has the container, over and over, while it moves there and back.
    @Test(arguments: [Technique.migrror, .cold])
    func everyAcknowledgedSignalArrivesOnce(_ technique: Technique) async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        try await hosts.a.start()
        try await hosts.b.start()
        try await hosts.run("signals", [])
        let isOver = Flag(), (a, b, container) = (hosts.a.client, hosts.b.client, hosts.container)
        let sender = Task {
            var acknowledged = 0
            while !isOver.isSet {
                for client in [a, b] where (try? await client.kill(container, signal: 36)) != nil { acknowledged += 1 }
            }
            return acknowledged
        }
        for (from, to) in [(hosts.a, hosts.b), (hosts.b, hosts.a), (hosts.a, hosts.b)] {
            let id = try await from.client.migrate(
                container, to: to.address.description, plan: MigrationPlan(technique: technique))
            let end = try await from.client.wait(for: id, every: .milliseconds(5))
            #expect(end.error == nil, "\(String(describing: end.error))")
            try await wait(seconds: 5) { hosts.mistakes().isEmpty }
        }
        isOver.set()
        let acknowledged = await sender.value
        #expect(acknowledged > 10)
        try await wait(seconds: 3) { counts(hosts.b, hosts) == "got \(acknowledged) and 0" }
        #expect(counts(hosts.b, hosts) == "got \(acknowledged) and 0")
        print("signals, \(technique): \(acknowledged) acknowledged, \(counts(hosts.b, hosts))")
    }

    /// A container with `signals`, whose handover is held at a point of the source until `open` is called.
    private func withHandover(
        heldAt point: FaultPoint, _ body: (FaultHosts, _ id: String, _ open: () -> Void) async throws -> Void
    ) async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let gate = "\(hosts.folder)/gate"
        try await hosts.a.start(fault: "\(point.rawValue):hold=\(gate)")
        try await hosts.b.start()
        try await hosts.run("signals", [])
        var plan = MigrationPlan(technique: .migrror)
        plan.freezeLimit = nil
        let id = try await hosts.a.client.migrate(hosts.container, to: hosts.b.address.description, plan: plan)
        try await wait(seconds: 10) { !hosts.hits().isEmpty }
        try await body(hosts, id) { close(creat(gate, 0o600)) }
    }

    /// Sent past Apus to the process and to a thread of it, after the capture and before the promise.
    @Test func whatIsSentInTheFreezeArrives() async throws {
        try await withHandover(heldAt: .sourceFrozen) { hosts, id, open in
            let pid = try #require(hosts.a.processes(of: hosts.container).first)
            let thread = try #require(try ProcessFiles.tasks(of: pid).first { $0 != pid })
            for _ in 0..<5 { kill(pid, 36) }
            for _ in 0..<3 { _ = clx_tgkill(pid, thread, 37) }
            open()
            let end = try await hosts.a.client.wait(for: id, every: .milliseconds(5))
            #expect(end.error == nil, "\(String(describing: end.error))")
            try await wait(seconds: 3) { counts(hosts.b, hosts) == "got 5 and 3" }
            #expect(counts(hosts.b, hosts) == "got 5 and 3")
        }
    }

    /// While it is being handed over, a signal waits; it is then refused with the reason where the container is not any
    /// more.
    @Test func aSignalInAHandoverIsRefusedByTheHostThatTheContainerHasLeft() async throws {
        try await withHandover(heldAt: .sourceCaptured) { hosts, id, open in
            let (client, container) = (hosts.a.client, hosts.container)
            let signal = Task { () -> AgentError? in
                do throws(AgentError) {
                    try await client.kill(container, signal: 36)
                    return nil
                } catch { return error }
            }
            try await Task.sleep(for: .milliseconds(200))
            open()
            let end = try await hosts.a.client.wait(for: id, every: .milliseconds(5))
            #expect(end.error == nil, "\(String(describing: end.error))")
            let error = await signal.value
            #expect(
                error?.message.contains("has moved away from host \(hosts.a.name)") == true,
                "\(String(describing: error))")
            #expect(counts(hosts.b, hosts) == "got 0 and 0")
        }
    }
}

// Cancels a migration in every state: until the promise the source runs on unharmed, afterwards it moves.
import Agent
import Glibc
import Migration
import Testing

@Suite(.serialized, .enabled(if: geteuid() == 0 && faultTestsWanted), .timeLimit(.minutes(5)))
struct CancelTests {
    static let points = FaultPoint.allCases.filter { $0.rawValue < 200 && !FaultCase.networkPoints.contains($0) }
    /// Held at these, the source has promised.
    static let tooLate: Set<FaultPoint> = [
        .sourcePromisedUnsent, .sourcePromised, .sourceReleased, .sourceKilled, .sourceRetired, .destinationPrepared, .destinationReleasing,
        .destinationDisarmed, .destinationReleased, .destinationTold,
    ]

    @Test(.timeLimit(.minutes(1)), arguments: points) func cancel(at point: FaultPoint) async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let gate = "\(hosts.folder)/gate", plan = "\(point.rawValue):hold=\(gate)", isSource = point.rawValue < 100
        try await hosts.a.start(fault: isSource ? plan : nil)
        try await hosts.b.start(fault: isSource ? nil : plan)
        try await hosts.run()
        let id = try await hosts.a.client.migrate(
            hosts.container, to: hosts.b.address.description, plan: MigrationPlan(technique: .migrror))
        for _ in 0..<4000 where hosts.hits().isEmpty { try await Task.sleep(for: .milliseconds(2)) }
        #expect(!hosts.hits().isEmpty, "the point was never hit")
        // The source waits for a destination that is held; it says so only while it waits.
        try await hosts.a.client.cancel(id)
        try await Task.sleep(for: .milliseconds(isSource ? 0 : 120))
        _ = creat(gate, 0o600)
        let end = try await hosts.a.client.wait(for: id, every: .milliseconds(5))

        // The destination cleans up after the source has ended.
        for _ in 0..<400 where !hosts.mistakes().isEmpty { try await Task.sleep(for: .milliseconds(5)) }
        #expect(hosts.mistakes().isEmpty, "\(hosts.a.words)\n\(hosts.b.words)")
        let place = try hosts.place()
        // A destination that was held before it restored may find that the source promised while it was held.
        if Self.tooLate.contains(point) {
            #expect(end.error == nil && place === hosts.b)
        } else if point != .destinationMuted && point != .destinationRestored {
            #expect(end.error?.code == .cancelled && place === hosts.a, "\(String(describing: end.error))")
        }
        #expect(try await hosts.verdict(on: place).contains("\"oracle\":\"ok\""))
    }

    /// `apus cancel` towards the destination.
    @Test(.timeLimit(.minutes(1))) func cancelAtTheDestination() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        try await hosts.a.start()
        try await hosts.b.start()
        try await hosts.run()
        var plan = MigrationPlan(technique: .migrror)
        plan.handover = .atTrigger
        let id = try await hosts.a.client.migrate(hosts.container, to: hosts.b.address.description, plan: plan)
        while try await hosts.a.client.migration(id).progress.state != .copying { try await Task.sleep(for: .milliseconds(5)) }
        try await hosts.b.client.cancel(id)
        #expect(try await hosts.a.client.wait(for: id).error != nil)
        for _ in 0..<400 where !hosts.mistakes().isEmpty { try await Task.sleep(for: .milliseconds(5)) }
        #expect(hosts.mistakes().isEmpty)
        #expect(try hosts.place() === hosts.a)
        #expect(try await hosts.verdict(on: hosts.a).contains("\"oracle\":\"ok\""))
    }
}

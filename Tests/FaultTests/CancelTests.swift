// Cancels a migration in every state: until the promise the source runs on unharmed, afterwards it moves.
import Agent
import Glibc
import Migration
import Testing

@testable import Testbed

/// How an operator says that a migration shall end.
enum CancelWay: String, CaseIterable, Sendable {
    /// `apus cancel` at the source, `apus cancel` at the destination, Ctrl-C of `apus migrate`.
    case atSource, atDestination, interrupt
}

struct CancelCase: Sendable, CustomTestStringConvertible {
    var point: FaultPoint
    var way: CancelWay
    var testDescription: String { "\(point.rawValue) \(point), \(way)" }

    /// Every way at every point; in the short matrix one way at each in turn.
    static let all: [CancelCase] = FaultCase.sessionPoints.enumerated().flatMap { index, point in
        // The destination may not know of a migration that has just been offered.
        let ways = CancelWay.allCases.filter { $0 != .atDestination || point != .sourceOffered }
        return (isComplete ? ways : [ways[index % ways.count]]).map { CancelCase(point: point, way: $0) }
    }

    /// Held at these, the source has promised.
    private static let tooLate: Set<FaultPoint> = [
        .sourcePromisedUnsent, .sourcePromised, .sourceReleased, .sourceKilled, .sourceRetired, .destinationPrepared,
        .destinationReleasing,
        .destinationDisarmed, .destinationReleased, .destinationTold,
    ]

    /// Whether the container has to move all the same; nil: either, the two run against each other.
    var moves: Bool? {
        switch (way, point) {
        // It has not heard of the promise, so it may say that it never runs here.
        case (.atDestination, .sourcePromisedUnsent): false
        // It may still be at work on what came before the promise.
        case (.atDestination, .sourcePromised): nil
        case (.atDestination, _): Self.tooLate.contains(point)
        // The source may promise, or not, while the destination is held.
        case (_, .destinationMuted), (_, .destinationRestored): nil
        default: Self.tooLate.contains(point)
        }
    }
}

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(10)))
struct CancelTests {
    @Test(.timeLimit(.minutes(1)), arguments: CancelCase.all) func cancel(_ test: CancelCase) async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let gate = "\(hosts.folder)/gate", plan = "\(test.point.rawValue):hold=\(gate)",
            isSource = test.point.rawValue < 100
        try await hosts.a.start(fault: isSource ? plan : nil)
        try await hosts.b.start(fault: isSource ? nil : plan)
        try await hosts.run()
        let command = try hosts.start(
            [
                "migrate", hosts.container, "--host", hosts.a.name, "--to", hosts.b.address.description, "--technique",
                "migrror",
            ])
        try await wait(seconds: 10) { !hosts.hits().isEmpty }
        try #require(
            hosts.hits().map(\.point) == [test.point.rawValue],
            "the point was never hit\n\(hosts.a.words)\n\(hosts.b.words)")

        let id = try #require(try await hosts.a.client.migrations().last).id
        switch test.way {
        // One that has ended on this side has nothing more to cancel.
        case .atSource: _ = try? await hosts.a.client.cancel(id)
        case .atDestination: _ = try? await hosts.b.client.cancel(id)
        case .interrupt:
            command.signal(SIGINT)
            try await wait { !command.isRunning || hosts.commandOutput.contains("cancelling") }
            #expect(
                test.moves == true || hosts.commandOutput.contains("cancelling the migration of \(hosts.container)"))
        }
        // One who waits for a side that is held hears of it only while waiting; a word must have gone where it is held.
        try await Task.sleep(for: .milliseconds(150))
        close(creat(gate, 0o600))
        let status = command.wait(seconds: 20)
        let end = try await hosts.a.client.wait(for: id, every: .milliseconds(5))

        // The destination cleans up after the source has ended.
        try await wait { hosts.mistakes().isEmpty }
        #expect(hosts.mistakes().isEmpty, "\(hosts.a.words)\n\(hosts.b.words)")
        let place = try hosts.place(), moved = place === hosts.b
        #expect(
            test.moves == nil || test.moves == moved,
            "\(String(describing: end.error))\n\(hosts.a.words)\n\(hosts.b.words)")
        #expect(status == (moved ? 0 : 5 << 8), "\(hosts.commandOutput)")
        #expect(end.error?.code == (moved ? nil : .cancelled), "\(String(describing: end.error))")
        // Both sides' books say the same, where the destination has any.
        let books = try await hosts.b.client.migrations()
        #expect(
            books.allSatisfy { $0.isOver && $0.error?.code == (moved ? nil : .cancelled) },
            "\(books.map(\.error))\n\(hosts.b.words)")
        #expect(try await hosts.verdict(on: place).contains("\"oracle\":\"ok\""))
    }
}

// Several deaths that leave a migration in doubt: nobody decides but the other host's word, or an operator's.
import Agent
import Glibc
import Migration
import Testing

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(5)))
struct DoubtTests {
    /// Starts a migration whose destination dies with its guard at a point, and waits until the source is in doubt.
    private func loseDestination(at point: FaultPoint, sourceFault: String? = nil, _ hosts: FaultHosts) async throws
        -> String
    {
        try await hosts.a.start(fault: sourceFault)
        try await hosts.b.start(fault: "\(point.rawValue),\(FaultPoint.guardFoundDeath.rawValue)")
        try await hosts.run()
        let id = try await hosts.a.client.migrate(
            hosts.container, to: hosts.b.address.description, plan: MigrationPlan(technique: .migrror))
        try await wait(seconds: 10) { hosts.hits().count >= 2 }
        try #require(hosts.hits().count >= 2, "a point was never hit\n\(hosts.a.words)\n\(hosts.b.words)")
        return id
    }

    private func settle(_ hosts: FaultHosts) async throws {
        try await wait { hosts.mistakes().isEmpty }
        #expect(hosts.mistakes().isEmpty, "\(hosts.a.words)\n\(hosts.b.words)")
        let place = try hosts.place()
        #expect(try await hosts.verdict(on: place).contains("\"oracle\":\"ok\""))
    }

    @Test(.timeLimit(.minutes(1))) func theDestinationsNextStartEndsTheDoubt() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let id = try await loseDestination(at: .destinationPrepared, hosts)
        try await Task.sleep(for: .milliseconds(1500))
        // However long it takes: no copy runs, and cancelling changes nothing.
        #expect(try await hosts.a.client.migration(id).progress.state == .inDoubt)
        #expect(!hosts.a.runs(hosts.container) && !hosts.b.runs(hosts.container))
        try await hosts.a.client.cancel(id)
        try await Task.sleep(for: .milliseconds(300))
        #expect(!hosts.a.runs(hosts.container))
        try await hosts.b.start()
        try await wait { try await hosts.a.client.migration(id).isOver }
        #expect(try await hosts.a.client.migration(id).error?.message.contains("never ran there") == true)
        try await settle(hosts)
        #expect(try hosts.place() === hosts.a)
    }

    /// It has no copy any more, and no record that it ever had one that ran: the only copy runs on.
    @Test(.timeLimit(.minutes(1)), arguments: [true, false])
    func aDestinationThatHasBootedAnewEndsTheDoubt(_ agentLives: Bool) async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let id = try await loseDestination(at: .destinationPrepared, hosts)
        try hosts.b.loseMemory(of: hosts.container)
        try await wait(seconds: 10) { try await hosts.a.client.migration(id).progress.state == .inDoubt }
        try await wait(seconds: 5) {
            try await hosts.a.client.migration(id).progress.remark?.contains("does not answer: connecting") == true
        }
        #expect(try await hosts.a.client.migration(id).progress.remark?.contains("does not answer: connecting") == true)
        // The source's guard asks in the place of its agent.
        if !agentLives { hosts.a.kill() }
        try await hosts.b.start(boot: "another-boot")
        if agentLives {
            try await wait { try await hosts.a.client.migration(id).isOver }
            let message = try await hosts.a.client.migration(id).error?.message ?? "none"
            #expect(message.contains("has booted anew since") && message.contains("never recorded"), "\(message)")
        }
        try await settle(hosts)
        #expect(try hosts.place() === hosts.a)
    }

    /// The same kernel as before, or a record of the container: neither says that it did not run there. The answer is
    /// told, and nothing
    /// is decided.
    @Test(.timeLimit(.minutes(1)), arguments: [true, false])
    func whatABootDoesNotTellIsLeftToAnOperator(_ isRecorded: Bool) async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let id = try await loseDestination(at: .destinationPrepared, hosts)
        try hosts.b.loseMemory(of: hosts.container)
        if isRecorded {
            let record = ContainerRecord(name: hosts.container, since: "", arguments: [], bundle: "")
            try hosts.b.layout.container(hosts.container).write(record: record)
        }
        try await hosts.b.start(boot: isRecorded ? "another-boot" : nil)
        let words = isRecorded ? "had run there: its files are there" : "knows nothing of migration \(id)"
        try await wait(seconds: 10) { try await hosts.a.client.migration(id).progress.remark?.contains(words) == true }
        let doubt = try await hosts.a.client.migration(id)
        #expect(doubt.progress.remark?.contains(words) == true, "\(doubt.progress.remark ?? "")")
        #expect(doubt.progress.state == .inDoubt && !hosts.a.runs(hosts.container))
        _ = try await hosts.a.client.resolve(id, keep: .source)
        try await wait { hosts.a.runs(hosts.container) }
        if isRecorded { try await hosts.b.client.remove(hosts.container) }
        try await settle(hosts)
        #expect(try hosts.place() === hosts.a)
    }

    @Test(.timeLimit(.minutes(1)), arguments: MigrationControl.Resolution.allCases)
    func anOperatorEndsTheSourcesDoubt(_ keep: MigrationControl.Resolution) async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        // To be kept, the destination's copy must run: disarmed, the kernel let it go.
        let id = try await loseDestination(at: keep == .source ? .destinationPrepared : .destinationDisarmed, hosts)
        try await wait(seconds: 10) { try await hosts.a.client.migration(id).progress.state == .inDoubt }
        #expect(try await hosts.a.client.migration(id).progress.state == .inDoubt)
        // What to check, and both ends of it, by the names an operator has to type.
        let told = try hosts.apus(["ps", "--host", hosts.a.name])
        #expect(
            told.status == 0
                && told.output.contains("Migration \(id) is in doubt: \(hosts.a.name) has promised not to run"))
        for word in MigrationControl.Resolution.allCases {
            #expect(
                told.output.contains("apus resolve \(hosts.container) --host \(hosts.a.name) --keep \(word.rawValue)"),
                "\(told.output)")
        }
        let cancelled = try hosts.apus(["cancel", hosts.container, "--host", hosts.a.name])
        #expect(cancelled.status == 7 && cancelled.output.contains("is in doubt"), "\(cancelled)")
        let resolved = try hosts.apus(["resolve", hosts.container, "--host", hosts.a.name, "--keep", keep.rawValue])
        #expect(resolved.status == 0 && resolved.output.contains("the \(keep.rawValue)'s copy lives"), "\(resolved)")
        try await wait { try await hosts.a.client.migration(id).isOver }
        let error = try await hosts.a.client.migration(id).error
        #expect(
            keep == .source ? error?.message.contains("an operator") == true : error == nil,
            "\(String(describing: error))")
        #expect(try hosts.place() === (keep == .source ? hosts.a : hosts.b))
        // Nothing is in doubt any more, so nothing can be resolved.
        #expect(try hosts.apus(["resolve", hosts.container, "--host", hosts.a.name, "--keep", "source"]).status == 3)
        try await hosts.b.start()
        try await settle(hosts)
    }

    @Test(.timeLimit(.minutes(1))) func aRestartedSourceShowsItsDoubtAndAsksOn() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        // The source's agent and guard die too, after the promise.
        _ = try await loseDestination(
            at: .destinationPrepared,
            sourceFault: "\(FaultPoint.sourcePromised.rawValue),\(FaultPoint.guardFoundDeath.rawValue)", hosts)
        try await wait { hosts.hits().count >= 4 }
        try await wait(seconds: 10) { hosts.a.isGone }
        try await hosts.a.start()
        let doubts = try await hosts.a.client.migrations()
        #expect(doubts.count == 1 && doubts[0].progress.state == .inDoubt && !doubts[0].isOver)
        #expect(!hosts.a.runs(hosts.container))
        try await hosts.b.start()
        try await settle(hosts)
        #expect(try hosts.place() === hosts.a)
        #expect(try await hosts.a.client.migrations().allSatisfy(\.isOver))
    }

    /// The destination died while it let go of the process, and the process is dead: whether it ran is known to nobody.
    @Test(.timeLimit(.minutes(1))) func aDestinationInDoubtIsEndedOnBothSides() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        let id = try await loseDestination(at: .destinationReleasing, hosts)
        try await wait(seconds: 10) { hosts.b.isGone }
        try await hosts.b.start()
        let doubts = try await hosts.b.client.migrations()
        #expect(doubts.map(\.progress.state) == [.inDoubt])
        try await Task.sleep(for: .milliseconds(700))
        #expect(try await hosts.a.client.migration(id).progress.state == .inDoubt)
        #expect(!hosts.a.runs(hosts.container))
        // The source hears of it by itself.
        let told = try hosts.apus(["ps", "--host", hosts.b.name])
        #expect(told.output.contains("is dead here; nobody knows whether it ran"), "\(told.output)")
        let resolved = try hosts.apus(["resolve", hosts.container, "--host", hosts.b.name, "--keep", "source"])
        #expect(resolved.status == 0 && resolved.output.contains("--keep source"), "\(resolved)")
        try await settle(hosts)
        #expect(try hosts.place() === hosts.a)
    }
}

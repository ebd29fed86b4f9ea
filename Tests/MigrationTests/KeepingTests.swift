// State of a process that moves along, kept and checked by the program itself (Workloads/keeper.c), and processes that
// are stopped, paused, or become another program while they are moved.
import CLinux
import Containers
import Engine
import Glibc
import LinuxKernel
import Synchronization
import Testing

@testable import Migration

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(3)))
struct KeepingTests {
    private let hosts: TwoHosts
    init() throws { hosts = try TwoHosts() }

    private func withKeeper(_ kind: String, _ body: (RunningContainer) throws -> Void) throws {
        defer { hosts.tearDown() }
        let container = try hosts.run("keep", "keeper", [kind])
        try hosts.waitUntilReady(container)
        try body(container)
    }
    private static let dirtier = ["--memory", "8M", "--rate", "2000", "--threads", "2"]
    private func withDirtier(_ body: (RunningContainer) throws -> Void) throws {
        defer { hosts.tearDown() }
        let container = try hosts.run("keep", "dirtier", Self.dirtier)
        try hosts.waitUntilReady(container)
        try body(container)
    }

    private func state(_ container: RunningContainer) -> Character? {
        (try? ProcessStatus(pid: container.pid))?["State"]?.first
    }
    private func await(_ wanted: Character, _ container: RunningContainer) -> Bool {
        for _ in 0..<2000 {
            if state(container) == wanted { return true }
            usleep(1000)
        }
        return false
    }

    // MARK: - Kept

    /// Names of threads and of the working folder that are no text, a SIGCONT that waits behind a mask, limits that are
    /// all reached.
    @Test(arguments: ["names", "folder", "continue", "limits"]) func isTheSameAfterEachMove(_ kind: String) throws {
        try withKeeper(kind) { container in
            var container = container
            for hop in 0..<2 {
                container = try hosts.migrate(container, from: hop, MigrationPlan(technique: [.preCopy, .cold][hop])).1
                #expect(try hosts.verdict(container, on: 1 - hop) == "{\"state\":\"ok\"}", "move \(hop)")
            }
        }
    }

    /// The runtime reads its configuration again to add a process: that is the container's, not the stub's.
    @Test func aProcessAddedAfterTheMoveIsTheContainersOwn() throws {
        try withKeeper("nothing") { container in
            let before = try SmallFile.text(hosts.hosts[0].layout.container(container.name).bundle + "/config.json")
            let (_, moved) = try hosts.migrate(container, MigrationPlan(technique: .cold))
            let layout = hosts.hosts[1].layout
            _ = try ContainerRecord.arrived(moved.name, moved.network, from: "a", layout)
            let after = try ContainerConfig(json: SmallFile.read(layout.container(moved.name).bundle + "/config.json"))
            #expect(try after.tree["process"] == ContainerConfig(json: [UInt8](before.utf8)).tree["process"])
        }
    }

    /// A child that ends in time is waited for, at the start as at the handover.
    @Test func aChildOfASecondIsWaitedFor() throws {
        try withKeeper("child") { container in
            let (_, moved) = try hosts.migrate(container, MigrationPlan(technique: .preCopy))
            #expect(try hosts.verdict(moved, on: 1) == "{\"state\":\"ok\"}")
        }
    }

    // MARK: - Stopped

    @Test(arguments: Technique.allCases) func aStoppedProcessArrivesStopped(_ technique: Technique) throws {
        try withDirtier { container in
            kill(container.pid, SIGSTOP)
            #expect(self.await("T", container))
            let (_, moved) = try hosts.migrate(container, MigrationPlan(technique: technique))
            #expect(state(moved) == "T")
            for task in try ProcessFiles.tasks(of: moved.pid) {
                #expect(try ProcessStatus(pid: moved.pid, task: task)["State"]?.first == "T")
            }
            kill(moved.pid, SIGCONT)
            #expect(try hosts.verdict(moved, on: 1).contains("\"oracle\":\"ok\""))
        }
    }

    /// SIGSTOP and SIGCONT at any instant of a move, again and again: each is taken for what it is, and leaves no
    /// trace.
    @Test func stopsAndContinuesAtAnyInstantDoNotDisturb() throws {
        try withDirtier { container in
            var container = container
            for hop in 0..<4 {
                let over = Atomic(false), pid = container.pid
                let disturber = try OwnThread("disturber") {
                    var random = SystemRandomNumberGenerator()
                    while !over.load(ordering: .acquiring), kill(pid, SIGSTOP) == 0 {
                        usleep(.random(in: 50...3000, using: &random))
                        kill(pid, SIGCONT)
                        usleep(.random(in: 50...3000, using: &random))
                    }
                }
                let moved = Result { try hosts.migrate(container, from: hop % 2, MigrationPlan(technique: .preCopy)).1 }
                over.store(true, ordering: .releasing)
                disturber.join()
                container = try moved.get()
                kill(container.pid, SIGCONT)
                #expect(try hosts.verdict(container, on: 1 - hop % 2).contains("\"oracle\":\"ok\""), "move \(hop)")
            }
        }
    }

    // MARK: - Paused

    private func runc(_ words: String..., on index: Int = 0) throws {
        try Subprocess.run(["runc", "--root", hosts.hosts[index].layout.runtimeRoot] + words)
    }

    /// The pause is waited out; the handover follows it.
    @Test func aPauseDuringTheCopyIsWaitedOut() throws {
        try withDirtier { container in
            var plan = MigrationPlan(technique: .preCopy)
            plan.handover = .atTrigger
            let control = MigrationControl()
            let pauser = try OwnThread("pauser") {
                while control.progress.state != .copying { usleep(1000) }
                try? runc("pause", container.name)
                control.triggerHandover()
                for _ in 0..<1000 where control.progress.remark?.contains("paused") != true { usleep(1000) }
                usleep(200_000)
                try? runc("resume", container.name)
            }
            let (_, moved) = try hosts.migrate(container, plan, control: control)
            pauser.join()
            #expect(control.progress.remark?.contains("it is paused") == true)
            #expect(try hosts.verdict(moved, on: 1).contains("\"oracle\":\"ok\""))
        }
    }

    /// The destination hears of the migration only when nothing is in the way any more: until then its silence means
    /// nothing.
    @Test func aPauseOfSecondsBeforeTheOfferIsWaitedOut() throws {
        try withDirtier { container in
            let control = MigrationControl()
            try runc("pause", container.name)
            let resumer = try OwnThread("resumer") {
                for _ in 0..<1000 where control.progress.remark?.contains("paused") != true { usleep(1000) }
                usleep(UInt32((Connection.usualSilence + 1) * 1e6))
                try? runc("resume", container.name)
            }
            let (_, moved) = try hosts.migrate(container, MigrationPlan(technique: .preCopy), control: control)
            resumer.join()
            #expect(try hosts.verdict(moved, on: 1).contains("\"oracle\":\"ok\""))
        }
    }

    /// A pause that lasts is named, and stays; cancelling is heard meanwhile.
    @Test(arguments: [false, true]) func aPauseThatLastsEndsTheMigrationByName(_ cancelling: Bool) throws {
        try withDirtier { container in
            var plan = MigrationPlan(technique: .migrror)
            (plan.handover, plan.postponeLimit) = (.atTrigger, cancelling ? 60 : 0.3)
            let error = hosts.failure(of: container, plan) { control in
                try runc("pause", container.name)
                control.triggerHandover()
                for _ in 0..<1000 where control.progress.remark?.contains("paused") != true { usleep(1000) }
                if cancelling { control.cancel() }
            }
            #expect(error?.kind == (cancelling ? .cancelled : .refused), "\(String(describing: error))")
            if !cancelling { #expect(error?.message.contains("it is paused: let it run") == true) }
            let place = try CgroupPlace(pid: container.pid, cgroup: hosts.hosts[0].layout.cgroup(of: container.name))
            #expect(place.isFrozen, "the operator's pause was ended")
            try runc("resume", container.name)
            // What the engine could not take back from a frozen process is for whoever reads the journal.
            for name in try Folder.names(hosts.hosts[0].journals) {
                guard let journal = OpenJournal(path: hosts.hosts[0].journals + "/" + name) else { continue }
                _ = try Repair.source(journal, hosts.hosts[0])
            }
            #expect(hosts.traces(of: container) == [])
            #expect(try hosts.verdict(container, on: 0).contains("\"oracle\":\"ok\""))
        }
    }

    /// A container that is paused at the very moment at which the engine stops it: the wait ends, and so does the
    /// trace.
    @Test func aPauseInTheMomentOfTheStopIsNoTrap() throws {
        try withDirtier { container in
            try OwnThread.run("tracer") {
                let process = try SourceProcess(pid: container.pid, undo: NoUndoLog())
                try process.attach()
                try runc("pause", container.name)
                struct Enough: Error {}
                process.whileWaiting = { throw Enough() }
                #expect(throws: Enough.self) { try process.freeze() }
                #expect(throws: EngineError.self) { try process.disarm() }
                try runc("resume", container.name)
            }.get()
            // The tracing thread has ended: the kernel has let the process go.
            #expect(try ProcessStatus(pid: container.pid)["TracerPid"] == "0")
            #expect(try hosts.verdict(container, on: 0).contains("\"oracle\":\"ok\""))
        }
    }

    // MARK: - Another program

    @Test(arguments: [false, true]) func aProgramThatIsExecutedIsNamed(_ inHandover: Bool) throws {
        try withKeeper("execute") { container in
            var plan = MigrationPlan(technique: .preCopy)
            plan.handover = .atTrigger
            let error = hosts.failure(of: container, plan) { control in
                kill(container.pid, SIGUSR2)
                if inHandover { control.triggerHandover() }
            }
            #expect(error?.kind == .refused, "\(String(describing: error))")
            #expect(error?.message.contains("has executed another program") == true, "\(String(describing: error))")
            #expect(hosts.traces(of: container) == [])
            #expect(hosts.leftovers(of: container.name) == [])
            let verdict = try hosts.verdict(container, on: 0)
            #expect(verdict == "{\"state\":\"ok\"}")
        }
    }
}

// What the parts of a migration's source share: which container goes where by which plan, and what is held of it.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel
import Memory

/// A container that is being moved away. Everything that is held of it is taken by `init`, and let go by `close`.
final class SourceContext {
    let container: RunningContainer
    let host: SessionHost
    /// Where the destination's agent listens.
    let destination: String
    let plan: MigrationPlan
    let control: MigrationControl
    let connection: Connection
    let secret = SessionSecret()
    /// CLOCK_MONOTONIC nanoseconds of the migration's decision.
    let decidedAt: Int64

    let directory: ContainerDirectory
    let layout: AddressSpaceReader
    let search: ObstacleSearch
    let journal: Journal
    private let guardian: GuardProcess?
    let process: SourceProcess
    private(set) var network: SourceNetwork?

    let steps = StepClock()
    var report: MigrationReport
    private(set) var state = SessionState.offered
    /// The promise has been given: only the destination's answer, or an operator, decides where the container runs.
    var isPromised = false

    /// - Parameter connection: to the destination's agent.
    init(
        id: String, container: RunningContainer, host: SessionHost, destination: String, plan: MigrationPlan,
        control: MigrationControl, connection: FileDescriptor, decidedAt: Int64
    ) throws {
        // Such a process has no memory to be looked into.
        if let ended = ProcessObstacles.endedLeader(container.pid) { throw MigrationError.refused([ended.description]) }
        (self.container, self.host, self.destination) = (container, host, destination)
        (self.plan, self.control, self.decidedAt) = (plan, control, decidedAt)
        self.connection = try Connection(connection, as: .source)
        self.connection.peer = destination
        directory = try host.layout.container(container.name)
        layout = try AddressSpaceReader(pid: container.pid)
        search = try ObstacleSearch(
            container, layout, host, acceptsInodeNumbers: plan.accept?.contains(.inodeNumbers) ?? false)
        report = MigrationReport(plan: plan)
        (report.id, report.container, report.source) = (id, container.name, host.name)
        report.startedAt = Date().ISO8601Format()
        report.loadAtDecision = try? ProcessLoad(of: container.pid)
        let cgroup = try CgroupPlace(pid: container.pid, cgroup: host.layout.cgroup(of: container.name))
        (journal, guardian) = try host.openJournal(
            JournalHeader(
                migration: id, role: .source, container: container.name, pid: container.pid,
                startTime: try ProcessFiles.startTime(of: container.pid), peer: destination, agent: getpid(),
                network: container.network, cgroup: cgroup, plan: plan, secret: secret))
        do { process = try SourceProcess(pid: container.pid, undo: journal) } catch {
            // The container has just ended. Nothing was done to it.
            try journal.settle()
            guardian?.end()
            throw error
        }
        search.process = process
        process.whileWaiting = { [connection = self.connection] in try connection.whileWaiting() }
        listen()
    }

    /// The guard ends, or plays what the journal still holds. To do that it may have to trace the process, which the
    /// kernel lets it once this thread has ended.
    func close() {
        guard let guardian else { return }
        if !journal.isSettled, (try? OwnThread.start("apus-guard", { guardian.end() })) != nil { return }
        guardian.end()
    }

    func awaitGuard() throws { try guardian?.awaitReadiness() }

    func openNetwork() throws {
        network = try container.network.map { try SourceNetwork($0, control) }
    }

    /// Pages that would have to be carried now.
    func residentPages() throws -> AddressRanges { try Pagemap(pid: process.pid).contents(of: layout.tracked) }

    // ---- Where it stands -----------------------------------------------------------------------------------

    func enter(_ next: SessionState) {
        state = next
        let elapsed = Double(monotonicNow() - decidedAt) / 1e9
        control.update { ($0.state, $0.elapsed) = (next, elapsed) }
    }

    /// Does a part of the migration whose time is reported by its name.
    func phase(_ name: String, _ body: () throws -> Void) throws {
        let start = monotonicNow()
        defer {
            let duration = Double(monotonicNow() - start) / 1e6
            if let index = report.phases.firstIndex(where: { $0.name == name }) {
                report.phases[index].duration += duration
            } else {
                report.phases.append(.init(name: name, duration: duration))
            }
        }
        try body()
    }

    /// What ends a wait while the container runs.
    func listen() {
        connection.interval = 50
        connection.whileWaiting = { [control] in if control.isCancelled { throw MigrationError.cancelled } }
    }

    func checkCancelled() throws {
        if control.isCancelled { throw MigrationError.cancelled }
        if isGone { throw EngineError.exited(pid: container.pid, how: "while it was copied") }
        if !process.memory.isCurrent { throw EngineError.executed(pid: container.pid) }
        try process.letHeldGo()
    }

    private var heardAt: Int64 = 0
    /// For long steps: throws when the move was cancelled, the container has ended or the destination has gone.
    func hear() throws {
        if isPromised || monotonicNow() - heardAt < 5_000_000 { return }
        heardAt = monotonicNow()
        try checkCancelled()
        // In the freeze its limit is asked for between the steps: what a walk has found must not be forgotten.
        if state != .frozen { try connection.hear() }
    }

    var isGone: Bool { kill(container.pid, 0) != 0 || isZombie(container.pid) }

    /// Why a migration ended: a container that ended by itself is the reason for whatever failed on it, and so is a
    /// program that was executed.
    func explained(_ error: any Error) -> MigrationError {
        let known = MigrationError(error, on: host.name)
        if isPromised || known.kind == .cancelled { return known }
        // Its memory goes a moment before it is a zombie.
        if (error as? KernelError)?.errno == .noProcess || error is EngineError {
            for _ in 0..<100 where !isGone { usleep(1000) }
        }
        guard isGone else {
            return process.memory.isCurrent
                ? known : MigrationError(EngineError.executed(pid: container.pid), on: host.name)
        }
        return MigrationError(
            .exited,
            "container \(container.name) ended on \(host.name) while it was being moved (pid \(container.pid))",
            advice: "`apus logs \(container.name)` shows its last words, `apus rm \(container.name)` removes it")
    }
}

/// Has this process ended, though nobody has collected its status?
func isZombie(_ pid: Int32) -> Bool {
    guard let state = try? ProcessFiles.statistics(of: pid).first else { return true }
    return state == "Z"
}

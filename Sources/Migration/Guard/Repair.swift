// Putting a host right after a migration's agent died, by the migration's journal. The guard does it at once, an agent
// that comes back does what is left; each step may have been done before.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel

enum Repair {
    enum SourceOutcome { case done, mustAsk }

    // ---- The source ----------------------------------------------------------------------------------------

    /// Before the promise, or with a verdict in the journal, all is undone or ended here; after it only the other host
    /// knows which.
    static func source(_ journal: OpenJournal, _ host: SessionHost) throws -> SourceOutcome {
        let content = journal.content
        if content.settled { return .done }
        switch content.resolved {
        case .released?, .retired?:
            try endCopy(journal, host)
            // It need not remember any more.
            Inquiry.ask(content.header).acknowledge()
        case .aborted?: try runOn(journal)
        default:
            if content.state == .promised { return .mustAsk }
            try runOn(journal)
        }
        return .done
    }

    /// Asks the other host until it knows, and acts on its word.
    ///
    /// - Parameters:
    ///   - heard: told what the other host says, in words.
    ///   - until: asked between two questions; true ends it, the journal stays.
    static func ask(
        _ journal: OpenJournal, _ host: SessionHost, heard: (String) -> Void = { _ in }, until: () throws -> Bool
    ) throws {
        var pause: UInt32 = 20_000
        while true {
            let answer = Inquiry.ask(journal.content.header)
            heard(answer.words)
            switch answer.state {
            case .released?, .retired?: try journal.write(.resolved(.released))
            case .aborted?: try journal.write(.resolved(.aborted))
            default: break
            }
            if answer.isThere {
                FaultPoint.reach(.guardAsked)
                if case .done = try source(journal, host) { return answer.acknowledge() }
            }
            if try until() { return }
            usleep(pause)
            pause = min(pause * 2, 500_000)
        }
    }

    /// The source's copy runs on as if nothing had been.
    private static func runOn(_ journal: OpenJournal) throws {
        let content = journal.content, header = content.header
        // Each is tried whatever becomes of the others: a container with a muted port is better off running.
        var failures: [any Error] = []
        func attempt(_ body: () throws -> Void) { do { try body() } catch { failures.append(error) } }
        if isProcess(header.pid, header.startTime) {
            // While its cgroup holds the process: a send in repair mode would fail.
            for case .socketRepair(let pid, let reusing) in content.undo {
                attempt { try TCPSocket.endRepairs(pid: pid, reusing: reusing) }
                attempt { try UDPSocket.endPeeks(pid: pid) }
                FaultPoint.reach(.guardRepaired)
                if let network = header.network {
                    attempt { try SourceHandoverRecord(network.spec, network.attachment).rollback() }
                    FaultPoint.reach(.guardOpened)
                }
                break
            }
            // Only for the engine: somebody else's pause stays.
            if let place = header.cgroup, content.undo.contains(.cgroupFreeze(pid: header.pid)) {
                attempt { try Cgroup(place).thaw() }
            }
            FaultPoint.reach(.guardThawed)
            attempt {
                // A thread of its own: what it cannot stop it lets go by ending.
                try OwnThread.run("apus-repair") {
                    try SourceProcess.removeInjections(pid: header.pid, content.undo, undo: journal)
                }.get()
            }
        } else if let place = header.cgroup {
            // It ended meanwhile; should it only be dying, it has to be let die.
            try? Cgroup(place).thaw()
        }
        if let failure = failures.first, isProcess(header.pid, header.startTime) { throw failure }
        FaultPoint.reach(.guardUndone)
        journal.settle()
    }

    /// The destination runs: this copy ends, without a word to its clients.
    private static func endCopy(_ journal: OpenJournal, _ host: SessionHost) throws {
        let header = journal.content.header
        if isAnothers(header, host) { return journal.settle() }
        if isProcess(header.pid, header.startTime) {
            kill(header.pid, SIGKILL)
            FaultPoint.reach(.guardKilled)
        }
        if let place = header.cgroup { try? Cgroup(place).thaw() }
        awaitEnd(header.pid, header.startTime)
        try allOf(
            { if let network = header.network { try ContainerNetwork.detach(network.spec, network.attachment) } },
            { try host.runtime.delete(header.container, force: true) },
            { try host.layout.container(header.container).remove() })
        _ = try? Cgroup.removeEmpty(host.layout.cgroup(of: header.container))
        FaultPoint.reach(.guardRetired)
        journal.settle()
    }

    // ---- The destination -----------------------------------------------------------------------------------

    /// Removes what was half made, or completes what runs.
    ///
    /// - Parameters:
    ///   - prompt: the agent has died this very moment, and nothing else can have ended the process since.
    ///   - decided: called as soon as the other host may be answered.
    /// - Returns: whether it runs here (`.released`), never ran (`.aborted`), or nil: in doubt.
    static func destination(_ journal: OpenJournal, _ host: SessionHost, prompt: Bool, decided: () -> Void) throws
        -> SessionState?
    {
        let content = journal.content, header = content.header
        if content.resolved == .released || content.disarmed || content.state == .released {
            try complete(journal, host, decided)
            return .released
        }
        if content.resolved == nil, content.state == .releasing {
            // EXITKILL was being cleared. It is all or nothing (see `StubProcess.disarm`): either the kernel killed the
            // stub with its tracer, or it let all threads go and the process runs.
            for _ in 0..<50 where isProcess(header.pid, header.startTime) { usleep(2000) }
            if isProcess(header.pid, header.startTime) {
                try complete(journal, host, decided)
                return .released
            }
            // Dead. Killed with its tracer, it never ran. Later, nobody could tell that from a program that ran and
            // then ended by itself. At this moment it may be called aborted: what runs has had the few milliseconds
            // since the agent's death; its port still holds all that comes for it, so it cannot have answered anyone,
            // and its files are its own copy. It left no trace outside that the source's copy could contradict.
            if !prompt { return nil }
        }
        try abort(journal, host, prompt: prompt, decided)
        return .aborted
    }

    /// It runs here: what was still missing around it.
    private static func complete(_ journal: OpenJournal, _ host: SessionHost, _ decided: () -> Void) throws {
        let header = journal.content.header
        if journal.content.state != .released { try journal.write(.state(.released)) }
        Recovery.remember(header, .released, in: host.journals)
        decided()
        if let network = header.network {
            try DestinationHandover.finish(DestinationHandoverRecord(network.spec, network.attachment))
        }
        FaultPoint.reach(.guardPortOpened)
        let directory = try host.layout.container(header.container)
        if access(directory.record, F_OK) != 0 {
            try directory.write(
                record: try ContainerRecord.arrived(
                    header.container, header.network, from: header.peerName ?? header.peer, host.layout))
        }
        FaultPoint.reach(.guardRecorded)
    }

    /// It never ran here and never will.
    private static func abort(_ journal: OpenJournal, _ host: SessionHost, prompt: Bool, _ decided: () -> Void) throws {
        let content = journal.content, header = content.header
        // At the moment of the death nothing can have come back yet, and the source waits for the word.
        let isAnothers = !prompt && isAnothers(header, host)
        let network = header.network.map { DestinationHandoverRecord($0.spec, $0.attachment) }
        if content.madeContainer, !isAnothers { try? network?.giveBack() }
        if isProcess(header.pid, header.startTime) { kill(header.pid, SIGKILL) }
        awaitEnd(header.pid, header.startTime)
        // The source can only have promised after it heard that its frames are held here.
        if [.frozen, .prepared, .promised, .releasing, .aborted].contains(content.state) {
            Recovery.remember(header, .aborted, in: host.journals)
        }
        if content.state != .aborted { try journal.write(.state(.aborted)) }
        decided()
        FaultPoint.reach(.guardAborted)
        if content.madeContainer, !isAnothers {
            // A runtime that was just making the container outlives the agent that started it.
            endRuntime(of: header.container, host)
            try allOf(
                { try Cgroup.killProcesses(in: host.layout.cgroup(of: header.container)) },
                { try host.runtime.delete(header.container, force: true) }, { try network?.abort() },
                { try host.layout.container(header.container).remove() })
            _ = try? Cgroup.removeEmpty(host.layout.cgroup(of: header.container))
        }
        FaultPoint.reach(.guardRemoved)
        if !Recovery.remembers(header.migration, in: host.journals) { journal.settle() }
    }

    // ---- Processes -----------------------------------------------------------------------------------------

    /// Is it alive and the one that is meant, not another that got its number?
    static func isProcess(_ pid: Int32, _ startTime: UInt64) -> Bool {
        guard pid > 0, !isZombie(pid), let status = try? ProcessStatus(pid: pid) else { return false }
        // The first thread of a dying process is a zombie before its others are gone.
        if status["State"]?.first == "X" { return false }
        return startTime == 0 || (try? ProcessFiles.startTime(of: pid)) == startTime
    }

    /// Has the container come back since, so that what bears its name here is not this migration's?
    private static func isAnothers(_ header: JournalHeader, _ host: SessionHost) -> Bool {
        if header.pid <= 0 || isProcess(header.pid, header.startTime) { return false }
        guard let state = (try? host.runtime.state(header.container)) ?? nil else { return false }
        return state.pid > 0 && state.pid != header.pid && !isZombie(state.pid)
    }

    private static func awaitEnd(_ pid: Int32, _ startTime: UInt64) {
        for _ in 0..<5000 {
            if !isProcess(pid, startTime) { break }
            usleep(1000)
        }
    }

    /// Waits until no runtime process of a container is left; one that hangs is killed after five seconds.
    private static func endRuntime(of container: String, _ host: SessionHost) {
        var working: [Int32] = []
        for _ in 0..<1000 {
            working = ((try? Folder.names("/proc")) ?? []).compactMap { Int32($0) }.filter { pid in
                guard let line = try? SmallFile.read("/proc/\(pid)/cmdline"), !line.isEmpty else { return false }
                let words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
                return words.contains(host.layout.runtimeRoot) && words.contains(container)
            }
            if working.isEmpty { return }
            usleep(5000)
        }
        // With what it has started: it leads a session of its own.
        for pid in working { kill(getpgid(pid) == pid ? -pid : pid, SIGKILL) }
    }
}

extension ContainerRecord {
    /// The record of a container that has come from another host.
    static func arrived(_ name: String, _ network: ContainerNetworkRecord?, from origin: String, _ layout: HostLayout)
        throws
        -> ContainerRecord
    {
        let directory = try layout.container(name), config = try directory.config()
        // What the runtime reads to add a process to the container is the process's configuration, not the stub's.
        try directory.write(
            config: config,
            prepared: try config.preparedForRun(
                .init(
                    root: directory.rootfs, networkNamespace: network?.attachment.namespace,
                    cgroup: layout.cgroup(of: name), bundle: directory.bundle)))
        return ContainerRecord(
            name: name, since: Date().ISO8601Format(), origin: origin, arguments: config.arguments,
            bundle: directory.bundle, network: network?.spec, attachment: network?.attachment)
    }
}

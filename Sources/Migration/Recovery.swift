// What a host knows of its migrations after a crash, and what an agent does about it when it starts.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel

public enum Recovery {
    // ---- What this host knows ------------------------------------------------------------------------------

    /// What is known here of a migration, and the secret that its parties share; nil: of none.
    struct Trace {
        /// `.released`: it runs (or ran) here. `.aborted`: it never ran here and never will. `.inDoubt`: cannot be told (yet),
        /// or it goes out from here.
        var state: SessionState
        var secret: SessionSecret?
    }

    /// What this host knows of a migration, in either role; nil: there is no trace of it here. That it ran outranks
    /// everything else.
    static func trace(of migration: String, in folder: String) -> Trace? {
        func marked(_ state: SessionState) -> Trace? {
            guard let text = try? SmallFile.text(marker(migration, state, folder)) else { return nil }
            return Trace(state: state, secret: SessionSecret(text))
        }
        // One that is settled is as good as gone: its writer died before it removed it.
        let written = JournalContent(path: "\(folder)/\(migration).destination")
        let journal = written?.settled == true ? nil : written
        if let journal, journal.disarmed || journal.state == .released || journal.resolved == .released {
            return Trace(state: .released, secret: journal.header.secret)
        }
        if let found = marked(.released) ?? marked(.aborted) { return found }
        if let journal { return Trace(state: journal.resolved ?? .inDoubt, secret: journal.header.secret) }
        for role in ["source", "destination"] where access("\(folder)/\(migration).\(role)", F_OK) == 0 {
            let content = JournalContent(path: "\(folder)/\(migration).\(role)")
            if content?.settled == true { continue }
            return Trace(state: .inDoubt, secret: content?.header.secret)
        }
        return nil
    }

    /// Leaves word for a source that asks later. It is kept until the source has heard it, at most a week: a source
    /// that asks after that is in doubt.
    static func remember(_ header: JournalHeader, _ state: SessionState, in folder: String) {
        let path = marker(header.migration, state, folder), fresh = path + ".new"
        do {
            let file = try FileDescriptor(opening: fresh, O_WRONLY | O_CREAT | O_TRUNC)
            try Array((header.secret?.description ?? "").utf8).withUnsafeBytes { try file.write($0) }
            // Never there without its secret.
            try checkC(rename(fresh, path), "naming \(path)")
        } catch {
            let words =
                "apus: the source of migration \(header.migration) will ask in vain what became of it: \(error)\n"
            _ = Glibc.write(2, words, words.utf8.count)
        }
    }
    static func remembers(_ migration: String, in folder: String) -> Bool {
        [.aborted, .released].contains { access(marker(migration, $0, folder), F_OK) == 0 }
    }
    static func forget(_ migration: String, in folder: String) {
        for state in [SessionState.aborted, .released] { unlink(marker(migration, state, folder)) }
    }
    private static func marker(_ migration: String, _ state: SessionState, _ folder: String) -> String {
        "\(folder)/\(migration).\(state.rawValue)"
    }

    // ---- An agent starts -----------------------------------------------------------------------------------

    /// Takes up what earlier agents and guards left: plays undo lists, enters migrations in doubt into the agent's
    /// books. Waits for guards that are at work.
    static func recover(host: SessionHost, agent: any MigrationHost) throws {
        let names = (try? Folder.names(host.journals)) ?? []
        for name in names.sorted() {
            let path = "\(host.journals)/\(name)"
            if name.hasSuffix(".aborted") || name.hasSuffix(".released") { forgetIfOld(path) }
            guard name.hasSuffix(".source") || name.hasSuffix(".destination"), let journal = OpenJournal(path: path)
            else { continue }
            do { try recover(journal, host, agent) } catch {
                let words = "apus: migration \(journal.content.header.migration) cannot be put right: \(error)\n"
                _ = Glibc.write(2, words, words.utf8.count)
            }
        }
        try removeHalfMade(host)
    }

    /// Folders of containers that were being made, and that no journal tells of: the host has booted since.
    private static func removeHalfMade(_ host: SessionHost) throws {
        let journals = ((try? Folder.names(host.journals)) ?? []).compactMap {
            JournalContent(path: "\(host.journals)/\($0)")?.header.container
        }
        for folder in try host.layout.containers() where access(folder.record, F_OK) != 0 {
            guard !journals.contains(folder.name), try host.runtime.state(folder.name) == nil else { continue }
            try folder.remove()
        }
    }

    private static func forgetIfOld(_ path: String) {
        var status = stat()
        if stat(path, &status) == 0, time(nil) - status.st_mtim.tv_sec > 7 * 86400 { unlink(path) }
    }

    /// Forgets the outcome of a migration once its source no longer knows the migration: an operator has decided there,
    /// or its guard has settled it. A source that is just ending its copy still knows it, so it is asked again,
    /// seldomer and seldomer, for half an hour.
    static func forgetIfUnasked(_ header: JournalHeader, _ host: SessionHost) throws {
        try OwnThread.start("apus-forget") {
            var pause: UInt32 = 100_000
            for _ in 0..<40 where remembers(header.migration, in: host.journals) {
                if Inquiry.ask(header).isUnknown {
                    return forget(header.migration, in: host.journals)
                }
                usleep(pause)
                pause = min(pause * 2, 60_000_000)
            }
        }
    }

    private static func recover(_ journal: OpenJournal, _ host: SessionHost, _ agent: any MigrationHost) throws {
        let doubt: Doubt
        switch journal.content.header.role {
        case .source:
            guard case .mustAsk = try Repair.source(journal, host) else { return }
            doubt = Doubt(journal, host, agent, .outgoing)
        case .destination:
            if try Repair.destination(journal, host, prompt: false, decided: {}) != nil {
                journal.settle()
                return try forgetIfUnasked(journal.content.header, host)
            }
            doubt = Doubt(journal, host, agent, .incoming)
        }
        try doubt.begin()
    }
}

/// A migration in doubt that an agent found: shown by `apus ps`, ended by the other host's word or an operator's.
private final class Doubt: @unchecked Sendable {
    // Handed to one thread by `begin`, and used by it alone.
    private let journal: OpenJournal
    private let host: SessionHost
    private let agent: any MigrationHost
    private let direction: MigrationDirection

    init(_ journal: OpenJournal, _ host: SessionHost, _ agent: any MigrationHost, _ direction: MigrationDirection) {
        (self.journal, self.host, self.agent, self.direction) = (journal, host, agent, direction)
    }

    func begin() throws {
        let header = journal.content.header
        let control = try agent.begin(
            header.migration, direction, container: header.container, peer: header.peerName ?? header.peer,
            plan: header.plan ?? MigrationPlan(technique: .cold))
        control.update {
            $0.state = .inDoubt
            $0.remark =
                direction == .outgoing
                ? "asking \(header.peer) whether it runs there"
                : "it was being released here and does not run: nobody knows whether it ran"
        }
        // A signal would reach a copy that may end.
        control.gate.close {}
        try OwnThread.start("apus-doubt") {
            self.end(control)
            control.gate.open()
        }
    }

    private func end(_ control: MigrationControl) {
        let header = journal.content.header
        do {
            switch direction {
            case .outgoing:
                try Repair.ask(journal, host, heard: { words in control.update { $0.remark = words } }) { [self] in
                    guard let word = control.resolution else { return false }
                    try journal.write(.resolved(word == .source ? .aborted : .released))
                    _ = try Repair.source(journal, host)
                    return true
                }
            case .incoming:
                while control.resolution == nil { usleep(100_000) }
                try journal.write(.resolved(control.resolution == .source ? .aborted : .released))
                _ = try Repair.destination(journal, host, prompt: false, decided: {})
                journal.settle()
            }
            let runsThere = journal.content.resolved == .released
            control.update { $0.state = runsThere ? .retired : .aborted }
            agent.end(
                header.migration,
                runsThere
                    ? .success(nil)
                    : .failure(control.resolution == nil ? MigrationError.aborted("it never ran there") : .resolved))
        } catch {
            agent.end(
                header.migration,
                .failure(MigrationError(.failed, "ended after a crash, but not all could be put right: \(error)")))
        }
    }
}

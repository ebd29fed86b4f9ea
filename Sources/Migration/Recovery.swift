// What a journal says after its writer died: who runs, and what is left to do. The guard and an agent that comes back
// both act on it.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel

public enum Recovery {
    /// What this host knows of a migration.
    ///
    /// `.released`: it runs (or ran) here. `.aborted`: it never ran here. `.inDoubt`: cannot be told (yet).
    static func verdict(on migration: String, in folder: String) -> SessionState {
        if access("\(folder)/\(migration).aborted", F_OK) == 0 { return .aborted }
        guard let journal = JournalContent(path: "\(folder)/\(migration).destination") else {
            // A migration that this host never heard of has not run here; one it settled has.
            return access("\(folder)/\(migration).released", F_OK) == 0 ? .released : .inDoubt
        }
        if let resolved = journal.resolved { return resolved }
        if journal.disarmed || journal.state == .released { return .released }
        return isAlive(journal.header.agent) ? .inDoubt : .inDoubt
    }

    /// Leaves word that a migration never ran here, for a source that asks later.
    static func rememberAborted(_ migration: String, in folder: String) {
        _ = try? FileDescriptor(opening: "\(folder)/\(migration).aborted", O_WRONLY | O_CREAT)
    }

    static func isAlive(_ pid: Int32) -> Bool { kill(pid, 0) == 0 && !isZombie(pid) }
}

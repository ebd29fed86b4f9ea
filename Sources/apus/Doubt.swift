// A migration in doubt, in words that tell an operator what to check.
import Agent
import Migration

/// What a host has to say of a migration that only an operator, or the other host's return, can end.
struct Doubt {
    private let migration: MigrationInfo
    private let host: HostInfo

    init(_ migration: MigrationInfo, on host: HostInfo) { (self.migration, self.host) = (migration, host) }

    private var what: String {
        let name = migration.container
        return switch migration.direction {
        case .outgoing:
            "migration \(migration.id) is in doubt: \(host.name) has promised not to run \(name), and \(migration.peer) does not "
                + "say whether it runs there. It is frozen here until that is known"
        case .incoming:
            "migration \(migration.id) is in doubt: \(name) was being released on \(host.name) and is dead here; nobody knows "
                + "whether it ran before. It is frozen on \(migration.peer) until you decide"
        }
    }

    private var check: String {
        let name = migration.container
        return switch migration.direction {
        case .outgoing:
            """
            1. start the agent on \(migration.peer), or mend the way to it: the two hosts then settle it alone
            2. only if that cannot be, see on \(migration.peer) whether it runs: `runc --root /run/apus/HOST/runtime state \(name)`, \
            where HOST is that agent's --host
               it says "running", and its exe (/proc/PID/exe) is not /.stub: `apus resolve \(name) --host \(host.name) --keep destination`
               there is none, or the machine is off and stays off: `apus resolve \(name) --host \(host.name) --keep source`
            """
        case .incoming:
            """
            1. see what \(name) did last: its log (`apus logs \(name)` on \(migration.peer), \(host.layout.containersFolder)/\(name)/log here) \
            and what its clients got
               nothing since the handover: `apus resolve \(name) --host \(host.name) --keep source` lets \(migration.peer) run on
               it answered clients from here, so what it knew is lost: `apus resolve \(name) --host \(host.name) --keep destination`
            2. \(migration.peer) hears of it by itself; if it is cut off, say the same there
            """
        }
    }

    /// All of it, for `apus ps`.
    var text: String { what.prefix(1).uppercased() + what.dropFirst() + ":\n" + check }

    /// As a command's end.
    var error: AgentError { AgentError(.inDoubt, what, advice: check) }
}

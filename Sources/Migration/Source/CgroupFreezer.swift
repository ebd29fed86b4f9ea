// The container's cgroup is frozen in the freeze, so that the process stays as it is though the engine die.
import Containers
import Engine
import LinuxKernel

/// Freezes a container's cgroup; takes back no other's freeze than its own.
final class CgroupFreezer {
    private let journal: Journal
    private let pid: Int32
    private var cgroup: Cgroup?
    private var hasFrozen = false

    init(_ source: SourceContext) { (journal, pid) = (source.journal, source.container.pid) }

    private var note: UndoStep { .cgroupFreeze(pid: pid) }

    /// Opens the cgroup, before the freeze.
    func open() throws { if cgroup == nil { cgroup = try Cgroup(journal.header.cgroup!) } }

    /// Notes in the journal that it may be frozen from here on.
    func announce() throws { try journal.note(note) }

    /// - Throws: `Postponed` if it is not frozen in time.
    func freeze(within milliseconds: Double) throws {
        hasFrozen = true
        do throws(KernelError) { try cgroup!.freeze(timeLimit: .milliseconds(Int(milliseconds))) } catch {
            if error.errno == .timedOut { throw Postponed(why: "\(error)") }
            throw error
        }
    }

    func thaw() throws {
        if hasFrozen { try cgroup!.thaw() }
        hasFrozen = false
        if journal.outstanding.contains(note) { try journal.done(note) }
    }
}

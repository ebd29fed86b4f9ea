// A journal whose writer is gone, held by whoever puts things right: one at a time.
import Containers
import Engine
import Glibc
import LinuxKernel

/// A journal that was left, locked by this process until the object goes.
final class OpenJournal: UndoLog {
    let path: String
    private let file: FileDescriptor
    private(set) var content: JournalContent

    /// Waits for one who works on it already; nil if there is no such journal (any more).
    init?(path: String) {
        guard let file = try? FileDescriptor(opening: path, O_RDWR | O_APPEND) else { return nil }
        while flock(file.number, LOCK_EX) != 0 {}
        // Settled while we waited?
        guard access(path, F_OK) == 0 else { return nil }
        guard let content = JournalContent(path: path), !content.settled else {
            // Its writer died before the first line, which tells of nothing done, or after the last one.
            unlink(path)
            return nil
        }
        (self.path, self.file, self.content) = (path, file, content)
        // A line that its writer's death cut short must not spoil the next.
        _ = Glibc.write(file.number, "\n", 1)
    }

    func reread() { if let fresh = JournalContent(path: path) { content = fresh } }

    func write(_ line: JournalLine) throws {
        try Journal.encode(line).withUnsafeBytes { try file.write($0) }
        reread()
    }
    func note(_ step: UndoStep) throws { try write(.undo(step)) }
    func done(_ step: UndoStep) throws { try write(.undone(step)) }

    func settle() {
        try? write(.settled)
        unlink(path)
    }

    /// The host as the journal describes it.
    var host: SessionHost? {
        let header = content.header
        guard let layout = header.layout else { return nil }
        let network = header.network
        return SessionHost(
            layout: layout, runtime: Runc(root: layout.runtimeRoot, program: header.runtime ?? "runc"),
            address: header.address ?? ""
        ) { _, _ in network?.attachment }
    }
}

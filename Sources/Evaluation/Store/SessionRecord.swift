// What the results of one start come from: the machine and the versions.
import Containers
import FoundationEssentials
import GRDB
import LinuxKernel
import Testbed

/// One start of an evaluation.
struct SessionRecord {
    var startedAt = Date().ISO8601Format()
    var machine = Machine.here()
    /// The container runtime's version.
    var runtime: String
    /// Versions of the servers that the workloads use; those that are not installed are left out.
    var services = Self.installed()
    /// SHA-256 of the apus program whose agents migrate.
    var program: String
    /// The commit of the working copy in which it was started, and whether that had changes; empty: it is none.
    var version = Self.workingCopy()
    /// The kernel's boot.
    var boot = (try? SmallFile.text("/proc/sys/kernel/random/boot_id"))?.filter { !$0.isNewline } ?? ""
    /// /proc/loadavg before anything was started.
    var load: String
    /// Techniques of the plan that this machine does not have, with the reason.
    var leftOut: [String] = []

    private static func installed() -> String {
        [("redis-server", ["--version"]), ("memcached", ["--version"])].compactMap { program, arguments -> String? in
            guard let path = Subprocess.find(program), let result = try? Subprocess.run([path] + arguments) else {
                return nil
            }
            let version = result.text.split(whereSeparator: \.isWhitespace).first { $0.contains { $0.isNumber } }
            return version.map { "\(program) \($0.hasPrefix("v=") ? $0.dropFirst(2) : $0)" }
        }.joined(separator: ", ")
    }

    private static func workingCopy() -> String {
        func git(_ words: String...) -> String? {
            guard let program = Subprocess.find("git") else { return nil }
            return try? Subprocess.run([program] + words).text.trimmingCharacters(in: .whitespacesAndNewlines)
        }
        guard let commit = git("rev-parse", "--short=12", "HEAD"), !commit.isEmpty else { return "" }
        return commit + (git("status", "--porcelain", "--untracked-files=no") == "" ? "" : " + changes")
    }

    func insert(_ db: Database) throws -> Int64 {
        try db.execute(
            sql: """
                INSERT INTO session (started_at, kernel, processor, processors, memory, runtime, services, program, version,
                    boot, load, left_out) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
            arguments: [
                startedAt, machine.kernel, machine.processor, machine.processors, Int64(machine.memory), runtime,
                services, program, version, boot, load, leftOut.joined(separator: "; "),
            ])
        return db.lastInsertedRowID
    }
}

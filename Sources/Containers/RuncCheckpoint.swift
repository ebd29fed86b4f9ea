// Checkpoint and restore by runc, which leaves both to CRIU. Apus's own migrations do not use them: they are what it is
// compared with.
import LinuxKernel

extension Runc {
    /// Where a checkpoint is, and who makes and reads it.
    public struct Checkpoint: Sendable {
        /// The folder of CRIU's images.
        public var images: String
        /// The folder of CRIU's logs, dump.log and restore.log.
        public var logs: String
        /// The program that runc starts as `criu`.
        public var program: String
        /// The folder of an earlier dump's images, which this one adds to; relative to `images`, as CRIU wants it. Nil:
        /// there is none.
        public var parent: String?
        public init(images: String, logs: String, program: String, parent: String? = nil) {
            (self.images, self.logs, self.program, self.parent) = (images, logs, program, parent)
        }
    }

    /// Writes a container's state into images and ends it; runc does not know it any more. When that fails it runs on.
    public func checkpoint(_ name: String, _ checkpoint: Checkpoint) throws(RuntimeError) {
        try run(
            "checkpointing container \(name) with runc", checkpoint, "checkpoint", Self.parent(checkpoint) + [name],
            log: "dump.log")
    }

    /// Writes the memory that a container has written since the parent's dump (all of it without one) into images, and
    /// lets it run on.
    public func preDump(_ name: String, _ checkpoint: Checkpoint) throws(RuntimeError) {
        try run(
            "dumping the memory of container \(name) with runc", checkpoint, "checkpoint",
            ["--pre-dump"] + Self.parent(checkpoint) + [name], log: "dump.log")
    }

    private static func parent(_ checkpoint: Checkpoint) -> [String] {
        checkpoint.parent.map { ["--parent-path", $0] } ?? []
    }

    /// Makes a container from a checkpoint and a bundle, whose root file system holds what the container's own held
    /// when the checkpoint was made; it runs when this returns. When that fails nothing of it is left.
    public func restore(_ name: String, bundle: String, _ checkpoint: Checkpoint) throws(RuntimeError) {
        try run(
            "restoring container \(name) with runc", checkpoint, "restore", ["--detach", "--bundle", bundle, name],
            log: "restore.log")
    }

    private func run(
        _ operation: String, _ checkpoint: Checkpoint, _ command: String, _ arguments: [String], log: String
    ) throws(RuntimeError) {
        let options = [
            "--image-path", checkpoint.images, "--work-path", checkpoint.logs, "--tcp-established", "--file-locks",
        ]
        do throws(RuntimeError) {
            try run(operation, ["--criu", checkpoint.program, command] + options + arguments)
        } catch {
            let reasons = Self.mistakes(inLog: (try? SmallFile.text("\(checkpoint.logs)/\(log)")) ?? "")
            if reasons.isEmpty { throw error }
            throw RuntimeError(operation: operation, words: "CRIU says: " + reasons.joined(separator: "; "))
        }
    }

    /// The first errors in CRIU's log ("(00.0012)  1: Error (criu/x.c:12): words"), without its place in its sources.
    static func mistakes(inLog text: String) -> [String] {
        let mark = "Error ("
        let found = text.split(separator: "\n").compactMap { line -> String? in
            guard let start = line.firstRange(of: mark)?.upperBound,
                let end = line[start...].firstRange(of: "): ")?.upperBound
            else { return nil }
            return String(line[end...])
        }
        // Without CAP_SYS_RESOURCE it cannot raise its own limit, and goes on.
        return Array(found.filter { !$0.hasPrefix("rlimit: ") }.prefix(3))
    }
}

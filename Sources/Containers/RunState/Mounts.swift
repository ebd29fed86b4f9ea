// The mounts of a container.
import LinuxKernel

struct Mounts: Codable, Sendable, Equatable {
    /// By the mount's number, which is its own as long as it lives.
    var entries: [String: Mount]

    struct Mount: Codable, Sendable, Equatable {
        var target, type: String
        /// Source and options, as /proc/PID/mountinfo has them.
        var details: String
    }

    init(pid: Int32) throws(KernelError) { self.init(text: try SmallFile.text("/proc/\(pid)/mountinfo")) }

    init(text: String) {
        entries = [:]
        for line in text.split(separator: "\n") {
            // ID parent major:minor root target options [tags...] - type source superoptions
            guard let dash = line.firstRange(of: " - ") else { continue }
            let before = line[..<dash.lowerBound].split(separator: " ")
            let after = line[dash.upperBound...].split(separator: " ", maxSplits: 1)
            guard before.count >= 6, after.count == 2 else { continue }
            // The tags tell how mounts elsewhere are passed on; those may come and go.
            entries[String(before[0])] = Mount(
                target: String(before[4]), type: String(after[0]),
                details: "\(before[2]) \(before[3]) \(before[5]) \(after[1])")
        }
    }

    func obstacles(since made: Mounts) -> [RunStateObstacle] {
        var found: [RunStateObstacle] = []
        for (number, mount) in entries {
            guard let before = made.entries[number] else {
                found.append(.init("mount \(mount.target) (\(mount.type))", "made at run time, not carried yet"))
                continue
            }
            if before != mount {
                found.append(
                    .init(
                        "mount \(mount.target) (\(mount.type))",
                        "changed at run time from \(before.details) to \(mount.details), not carried yet"))
            }
        }
        for (number, mount) in made.entries where entries[number] == nil {
            found.append(.init("mount \(mount.target) (\(mount.type))", "removed at run time, not carried yet"))
        }
        return found.sorted { $0.what < $1.what }
    }
}

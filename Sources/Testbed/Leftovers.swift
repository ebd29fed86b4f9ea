// Finds and removes what agents of a testbed's hosts may have left: by the names that follow from a host's name
// (see HostLayout), never by guessing.
import CLinux
import Glibc
import LinuxKernel

enum Leftovers {
    /// Ends everything in a cgroup of every hierarchy and removes it. Frozen tasks are killed first and thawed then: a
    /// frozen container is a copy that must not run.
    static func removeCgroups(_ name: String) {
        let roots = cgroupRoots().map { $0 + name }.filter(fileExists)
        guard !roots.isEmpty else { return }
        let groups = roots.flatMap(tree)
        var pids: Set<Int32> = []
        _ = waitUntil(seconds: 5) {
            pids = []
            for group in groups {
                let text = (try? SmallFile.text("\(group)/cgroup.procs")) ?? ""
                pids.formUnion(text.split(separator: "\n").compactMap { Int32($0) }.filter { $0 > 0 })
            }
            for pid in pids { kill(pid, SIGKILL) }
            for group in groups {
                if fileExists("\(group)/freezer.state") { try? SmallFile.write("THAWED", to: "\(group)/freezer.state") }
                if fileExists("\(group)/cgroup.freeze") { try? SmallFile.write("0", to: "\(group)/cgroup.freeze") }
            }
            return pids.isEmpty
        }
        // Removal is refused for a moment after the last task's end.
        _ = waitUntil(seconds: 2) {
            for group in groups.reversed() { rmdir(group) }
            return !roots.contains(where: fileExists)
        }
    }

    static func cgroups(_ name: String) -> [String] { cgroupRoots().map { $0 + name }.filter(fileExists) }

    /// A folder and those below it, from the top.
    private static func tree(_ group: String) -> [String] {
        var result = [group]
        for name in fileNames(group) {
            var info = stat()
            if lstat("\(group)/\(name)", &info) == 0 && info.st_mode & S_IFMT == S_IFDIR {
                result += tree("\(group)/\(name)")
            }
        }
        return result
    }

    /// Mount points of all cgroup hierarchies.
    private static func cgroupRoots() -> [String] { mounts().filter { $0.type.hasPrefix("cgroup") }.map(\.point) }

    /// Mount points below a folder, the last mounted first.
    static func mounts(below folder: String) -> [String] {
        mounts().map(\.point).filter { $0 == folder || $0.hasPrefix(folder + "/") }.reversed()
    }

    private static func mounts() -> [(point: String, type: String)] {
        // proc(5): ... mount point (5th field, blanks as \040) ... " - " type source options
        ((try? SmallFile.text("/proc/self/mountinfo")) ?? "").split(separator: "\n").compactMap { line in
            let halves = line.split(separator: " - ", maxSplits: 1)
            let fields = halves[0].split(separator: " ")
            guard halves.count == 2, fields.count > 4, let type = halves[1].split(separator: " ").first else {
                return nil
            }
            return (
                fields[4].split(separator: "\\040", omittingEmptySubsequences: false).joined(separator: " "),
                String(type)
            )
        }
    }

    /// Processes whose command line names a folder: guards and agents of a host whose PIDs nobody wrote down.
    ///
    /// - Parameter command: the program's subcommand; nil: any.
    static func processes(naming folder: String, command: String? = nil) -> [Int32] {
        programs("apus", naming: folder) { command == nil || $0 == command }
    }

    /// Connections to agents of other machines that lead to a socket in the folder.
    static func connections(naming folder: String) -> [Int32] { programs("/ssh", naming: folder) { _ in true } }

    private static func programs(_ ending: String, naming folder: String, _ isWanted: (String) -> Bool) -> [Int32] {
        ProcessTable.all().filter { pid in
            guard pid != getpid(), let line = try? SmallFile.read("/proc/\(pid)/cmdline") else { return false }
            let words = line.split(separator: 0).prefix(2).map { String(decoding: $0, as: UTF8.self) }
            guard words.count == 2, words[0].hasSuffix(ending), isWanted(words[1]) else { return false }
            return line.split(separator: 0).dropFirst().contains { argument in
                let text = String(decoding: argument, as: UTF8.self)
                return text == folder || text.hasPrefix(folder + "/")
            }
        }
    }

    /// Unmounts everything below a folder and removes it.
    static func removeFolder(_ folder: String) {
        for point in mounts(below: folder) { _ = clx_umount(point, 2 /* MNT_DETACH */) }
        removeTree(folder)
    }
}

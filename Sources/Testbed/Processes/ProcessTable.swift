// Processes as /proc shows them: to find and end what a testbed left behind, and nothing else.
import CLinux
import Glibc
import LinuxKernel

enum ProcessTable {
    /// Every PID.
    static func all() -> [Int32] { fileNames("/proc").compactMap { Int32($0) } }

    /// Start time in clock ticks after boot: with the PID it names a process for good. nil: gone.
    static func startTime(_ pid: Int32) -> UInt64? {
        guard let fields = try? ProcessFiles.statistics(of: pid) else { return nil }
        return fields.count > 19 && fields[0] != "Z" ? UInt64(fields[19]) : nil
    }

    /// Ends processes: SIGTERM if `grace` is above 0, SIGKILL to those left; returns when they are gone.
    static func end(_ pids: [Int32], grace: Double) {
        let known = pids.compactMap { pid in startTime(pid).map { (pid, $0) } }
        func left() -> [Int32] { known.filter { startTime($0.0) == $0.1 }.map(\.0) }
        if grace > 0 {
            for pid in left() { kill(pid, SIGTERM) }
            _ = waitUntil(seconds: grace) { left().isEmpty }
        }
        for pid in left() { kill(pid, SIGKILL) }
        _ = waitUntil(seconds: 5) { left().isEmpty }
    }
}

/// Names in a folder, without "." and ".."; empty when it cannot be read.
func fileNames(_ folder: String) -> [String] {
    guard let stream = opendir(folder) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
        // SAFETY: d_name is a null-terminated string inside the entry, which lives until the next readdir.
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names
}

func fileExists(_ path: String) -> Bool { access(path, F_OK) == 0 }

/// mkdir -p.
func makeFolders(_ path: String) throws {
    var at = ""
    for part in path.split(separator: "/") {
        at += "/\(part)"
        if mkdir(at, 0o755) != 0 && errno != EEXIST { throw KernelError("making folder \(at)", Errno(errno)) }
    }
}

/// rm -r, which stays on one file system and does not follow links; what is not there is no error.
func removeTree(_ path: String) {
    var info = stat()
    guard lstat(path, &info) == 0 else { return }
    guard info.st_mode & S_IFMT == S_IFDIR else {
        unlink(path)
        return
    }
    for name in fileNames(path) {
        var child = stat()
        if lstat("\(path)/\(name)", &child) == 0 && child.st_dev == info.st_dev { removeTree("\(path)/\(name)") }
    }
    rmdir(path)
}

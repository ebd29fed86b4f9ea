// /proc/PID/status and its neighbours: what the kernel tells of a process in text.
import CLinux
import Glibc

/// The fields of /proc/PID/status.
public struct ProcessStatus: Sendable {
    /// The file after a line's end, so that each field's name follows one. Searched, not taken apart: of some sixty
    /// fields a few are asked for, and inside the freeze.
    private let text: [UInt8]

    public init(pid: Int32, task: Int32? = nil) throws(KernelError) {
        text = [10] + (try SmallFile.read(task.map { "/proc/\(pid)/task/\($0)/status" } ?? "/proc/\(pid)/status"))
    }

    /// A field's bytes as they are in the file, without its name and leading blanks.
    public func bytes(_ name: String) -> ArraySlice<UInt8>? {
        let mark = "\n\(name):"
        let start = text.withUnsafeBytes { clx_find($0.baseAddress, $0.count, mark, mark.utf8.count) }
        if start < 0 { return nil }
        return text[(start + mark.utf8.count)...].prefix { $0 != 10 }.drop { $0 == 32 || $0 == 9 }
    }
    /// A field's text, without leading blanks.
    public subscript(name: String) -> String? { bytes(name).map { String(decoding: $0, as: UTF8.self) } }
    /// The numbers of a field, read in the given base.
    public func numbers(_ name: String, radix: Int = 10) -> [UInt64] {
        (self[name] ?? "").split(whereSeparator: { $0 == " " || $0 == "\t" }).compactMap { UInt64($0, radix: radix) }
    }
    public func hex(_ name: String) -> UInt64 { numbers(name, radix: 16).first ?? 0 }
}

/// Parts of /proc/PID that are lists of numbers.
public enum ProcessFiles {
    /// TIDs of a process, ascending.
    public static func tasks(of pid: Int32) throws(KernelError) -> [Int32] {
        try numbers(in: "/proc/\(pid)/task")
    }
    /// Open descriptors of a process, ascending.
    public static func descriptors(of pid: Int32) throws(KernelError) -> [Int32] {
        try numbers(in: "/proc/\(pid)/fd")
    }
    /// Children of all its threads.
    public static func children(of pid: Int32) throws(KernelError) -> [Int32] {
        var children: [Int32] = []
        for task in try tasks(of: pid) {
            // A thread that has ended since it was listed left its children to another.
            guard let text = try? SmallFile.text("/proc/\(pid)/task/\(task)/children") else { continue }
            children += text.split(separator: " ").compactMap { Int32($0) }
        }
        return children
    }

    /// The fields of proc_pid_stat(5) from the state on: field `n` of the manual is at `n - 3`. The name before them
    /// may hold anything, but ends at the last parenthesis.
    ///
    /// - Parameter task: one of its threads; nil: the process.
    public static func statistics(of pid: Int32, task: Int32? = nil) throws(KernelError) -> [Substring] {
        let path = "/proc/\(pid)/\(task.map { "task/\($0)/" } ?? "")stat"
        let text = try SmallFile.text(path)
        guard let end = text.lastIndex(of: ")") else { throw KernelError("reading \(path)", Errno(EINVAL)) }
        return Array(text[end...].split(separator: " ").dropFirst())
    }

    /// When a process started, in clock ticks since boot (field 22).
    public static func startTime(of pid: Int32) throws(KernelError) -> UInt64 {
        let fields = try statistics(of: pid)
        return fields.count > 19 ? UInt64(fields[19]) ?? 0 : 0
    }

    /// Names of a folder that are numbers, ascending.
    private static func numbers(in path: String) throws(KernelError) -> [Int32] {
        guard let folder = opendir(path) else { throw KernelError("listing \(path)", Errno(Glibc.errno)) }
        defer { closedir(folder) }
        var numbers: [Int32] = []
        while let entry = readdir(folder) {
            // SAFETY: d_name is zero-terminated and lives until the next readdir.
            let number = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) {
                    $0.pointee >= 48 && $0.pointee <= 57 ? atoi($0) : -1
                }
            }
            if number >= 0 { numbers.append(number) }
        }
        return numbers.sorted()
    }

    /// readlink(2), as text: what of it is none is replaced.
    public static func link(_ path: String) throws(KernelError) -> String {
        String(decoding: try linkBytes(path), as: UTF8.self)
    }

    /// readlink(2), as it is: a path need not be text.
    public static func linkBytes(_ path: String) throws(KernelError) -> [UInt8] {
        var length = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: 4096) { buffer, count in
            length = buffer.withMemoryRebound(to: CChar.self) { readlink(path, $0.baseAddress!, 4096) }
            count = max(0, length)
        }
        try checkC(length, "reading link \(path)")
        return bytes
    }
}

// Other processes beside the one that is carried, and a first process that is one no more.
import Glibc
import LinuxKernel

public enum ProcessObstacles {
    /// A process besides the container's first, by what it is.
    static func another(_ pid: Int32, beside context: InspectContext) -> Obstacle {
        another(pid, beside: context.pid, context.process)
    }

    /// - Parameters:
    ///   - pid: a child, or what `runc exec` has started.
    ///   - first: the container's first process.
    public static func another(_ pid: Int32, beside first: Int32, _ name: String) -> Obstacle {
        let status = try? ProcessStatus(pid: pid)
        let isZombie = status?["State"]?.first == "Z"
        let isChild = status?.numbers("PPid").first == UInt64(first)
        let words =
            isZombie
            ? "has ended and was not waited for (a zombie), not carried yet" : "more than one process, not carried yet"
        return Obstacle(
            pid: first, process: name, subject: "\(isChild ? "child" : "process") \(pid) (\(processName(pid)))",
            reason: words, mayPass: true)
    }

    /// Why a process cannot even be looked into: its first thread has ended by itself, others go on.
    public static func endedLeader(_ pid: Int32) -> Obstacle? {
        guard let tasks = try? ProcessFiles.tasks(of: pid), tasks.count > 1,
            (try? ProcessStatus(pid: pid))?["State"]?.first == "Z"
        else { return nil }
        return Obstacle(
            pid: pid, process: processName(pid), subject: "first thread",
            reason: "it has ended while \(tasks.count - 1) other threads go on, not carried yet")
    }

    /// A program of 32 bits, by its executable's first bytes.
    static func narrow(_ context: InspectContext) -> Obstacle? {
        var start = [UInt8](repeating: 0, count: 5)
        guard let file = try? FileDescriptor(opening: "/proc/\(context.pid)/exe", O_RDONLY),
            let count = try? start.withUnsafeMutableBytes({ try file.read(at: 0, into: $0) }), count == 5,
            start.elementsEqual([0x7f, 0x45, 0x4c, 0x46, 1] as [UInt8])  // "\u{7f}ELF", ELFCLASS32
        else { return nil }
        return context.obstacle("process", "a 32-bit program, not carried yet")
    }
}

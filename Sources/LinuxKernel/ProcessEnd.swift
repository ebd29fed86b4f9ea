// How a process ended that is not our child: by a pidfd, taken while it lived.
import CLinux
import Glibc

/// A process, held so that nobody else's number is taken for it.
public final class ProcessEnd: Sendable {
    public let pid: Int32
    /// Readable when the process has ended.
    public let pidfd: FileDescriptor

    /// - Throws: `.noProcess` if there is none of this number.
    public init(of pid: Int32) throws(KernelError) {
        self.pid = pid
        pidfd = FileDescriptor(owning: try check(clx_pidfd_open(pid, 0), "opening pid \(pid)"))
    }

    /// The wait status of a process that has ended; nil: the kernel does not tell.
    ///
    /// It tells of one that its parent has collected (Linux 6.15), or by /proc of one that nobody has. Waits for
    /// either.
    public func waitStatus() -> Int32? {
        for _ in 0..<200 {
            var status: Int32 = 0
            let result = clx_pidfd_exit(pidfd.number, &status)
            if result == 0 { return status }
            if let status = uncollected() { return status }
            // Before Linux 6.15 there is nothing to wait for once it is collected.
            if result != -EAGAIN && result != -ESRCH { return nil }
            usleep(5000)
        }
        return nil
    }

    /// The status that a process which has ended keeps until its parent asks (proc_pid_stat(5), field 52).
    private func uncollected() -> Int32? {
        guard let fields = try? ProcessFiles.statistics(of: pid),
            // Nobody gets its number while it is there.
            clx_pidfd_send_signal(pidfd.number, 0) == 0, fields.first == "Z", let last = fields.last
        else { return nil }
        return Int32(last)
    }
}

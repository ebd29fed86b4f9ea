// What a process uses, as the kernel counts it.
import Glibc
import LinuxKernel

package struct ProcessMeter: Sendable {
    let pid: Int32
    package init(pid: Int32) { self.pid = pid }

    /// CPU time in user and system mode since the start, seconds (proc_pid_stat(5), fields 14 and 15: hundredths).
    package func cpuTime() throws -> Double {
        let fields = try ProcessFiles.statistics(of: pid)
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else {
            throw TestbedError("/proc/\(pid)/stat is not understood")
        }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    /// CPU time by thread, seconds, to the nanosecond.
    func threadTimes() throws -> [Int32: Double] {
        var times: [Int32: Double] = [:]
        for task in try ProcessFiles.tasks(of: pid) {
            // A thread that has ended since the folder was read is left out.
            guard let text = try? SmallFile.text("/proc/\(pid)/task/\(task)/schedstat") else { continue }
            times[task] = (text.split(separator: " ").first.flatMap { Double($0) } ?? 0) / 1e9
        }
        return times
    }

    /// Begins a new measurement of the peak (proc_pid_clear_refs(5)).
    func resetPeak() throws { try SmallFile.write("5", to: "/proc/\(pid)/clear_refs") }

    /// Largest resident memory since `resetPeak`, MiB.
    func peak() throws -> Double {
        Double(try ProcessStatus(pid: pid).numbers("VmHWM").first ?? 0) / 1024
    }
}

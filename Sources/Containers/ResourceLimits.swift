// Resource limits (setrlimit(2)) of a container's process on its way from host to host.
import CLinux
import Glibc
import LinuxKernel

public enum ResourceLimits {
    /// By RLIMIT_* number, as the runtime specification calls them.
    static let names = [
        "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
        "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
    ]

    /// The hard limits of this process, which it hands down to what it starts.
    static func own() -> [UInt64] {
        names.indices.map { resource in
            var soft: UInt64 = 0, hard: UInt64 = 0
            return clx_prlimit(0, Int32(resource), 0, 0, 0, &soft, &hard) < 0 ? .max : hard
        }
    }

    /// The hard limits of a process, by RLIMIT_* number (proc_pid_limits(5)).
    public static func hard(of pid: Int32) throws(KernelError) -> [UInt64] {
        // "Max open files            1024                 20000                files": columns of 26, 21 and 21.
        let lines = try SmallFile.text("/proc/\(pid)/limits").split(separator: "\n").dropFirst()
        return lines.map { line in
            let value = line.utf8.dropFirst(47).prefix { $0 != UInt8(ascii: " ") }
            return UInt64(String(Substring(value))) ?? .max
        }
    }

    /// Why this host cannot give a process its hard limits: it may not raise what its agent has itself.
    public static func reasonsAgainst(_ limits: [UInt64]) -> [String] {
        let mayRaise = (try? ProcessStatus(pid: getpid()).hex("CapEff") & 1 << 24) ?? 0 != 0  // CAP_SYS_RESOURCE
        if mayRaise { return [] }
        return zip(names, zip(limits, own())).compactMap { name, limits in
            let (wanted, available) = limits
            guard wanted > available else { return nil }
            return "the process has a hard limit RLIMIT_\(name) of \(text(wanted)), and this host's agent may give "
                + "\(available): raise the agent's own (`ulimit -H`)"
        }
    }
    private static func text(_ limit: UInt64) -> String { limit == .max ? "unlimited" : "\(limit)" }

    /// What the stub gets instead of the limits in a configuration.
    ///
    /// The stack's limit is left alone: it decides how an address space is laid out, which stays for the process's
    /// life.
    static func forStub(_ configured: [JSONValue], _ limits: [UInt64]) -> [JSONValue] {
        let own = own()
        return names.indices.compactMap { resource in
            let name = "RLIMIT_" + names[resource]
            let entry = configured.first { $0["type"]?.string == name }
            if names[resource] == "STACK" { return entry }
            let known = resource < limits.count ? limits[resource] : 0
            let widest = max(own[resource], known, entry?["hard"]?.unsigned ?? 0)
            // A stub that crashes shall leave no core file in the container's root.
            let soft = names[resource] == "CORE" ? 0 : widest
            return ["type": .string(name), "soft": .unsigned(soft), "hard": .unsigned(widest)]
        }
    }
}

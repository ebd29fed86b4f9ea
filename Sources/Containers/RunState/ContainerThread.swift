// A thread inside the namespaces of a container, for what the kernel shows by the namespaces of whoever asks.
import CLinux
import Glibc
import LinuxKernel

enum ContainerThread {
    /// Runs a closure on a fresh thread in the network, UTS and IPC namespaces of a process, and waits for it.
    static func run<T>(in pid: Int32, _ body: () throws(KernelError) -> T) throws(KernelError) -> T {
        let process = FileDescriptor(owning: try check(clx_pidfd_open(pid, 0), "opening process \(pid)"))
        return try OwnThread.run("apus-look") { () throws(KernelError) -> T in
            try check(
                clx_setns(process.number, CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC),
                "entering the namespaces of process \(pid)")
            return try body()
        }.get()
    }
}

/// Which namespaces a container does not share with this agent.
struct OwnSpaces: Sendable {
    let network, names, messages: Bool

    init(pid: Int32) {
        func isOwn(_ name: String) -> Bool {
            (try? ProcessFiles.link("/proc/\(pid)/ns/\(name)")) != (try? ProcessFiles.link("/proc/self/ns/\(name)"))
        }
        (network, names, messages) = (isOwn("net"), isOwn("uts"), isOwn("ipc"))
    }
}

/// include/uapi/linux/sched.h.
private let CLONE_NEWUTS: Int32 = 0x0400_0000
private let CLONE_NEWIPC: Int32 = 0x0800_0000
private let CLONE_NEWNET: Int32 = 0x4000_0000

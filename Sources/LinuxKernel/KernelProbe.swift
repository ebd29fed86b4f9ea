// The one probe of the kernel: tries what Apus relies on, rather than guessing from versions.
import CLinux
import Glibc

/// Facts and findings of one host. Takes some tens of milliseconds and starts three short-lived children.
public struct KernelProbe: Codable, Sendable {
    public private(set) var facts = KernelFacts()
    public private(set) var findings: [Finding] = []

    /// Whether everything essential is there.
    public var canMigrate: Bool { facts.missing.isEmpty }

    /// - Parameter runtime: the runtime's version, asked by whoever knows runtimes; nil: there is none.
    public init(runtime: String?) {
        facts.runtime = runtime
        probeSystem()
        probeProcessor()
        probeMemoryTracking()
        probeOtherProcess()
        probePrivileges()
        probeCgroups()
        probeFaultEvents()
        probeNetwork()
        add(
            "runtime", runtime != nil, runtime ?? "not found", "runc makes the container on the destination",
            "install it (Debian: `apt install runc`)")
        probeMemory()
        facts.missing = findings.filter { $0.essential && $0.state == .missing }.map(\.name)
    }

    private mutating func add(
        _ name: String, _ good: Bool, _ found: String, _ why: String, _ advice: String, essential: Bool = true
    ) {
        findings.append(
            Finding(
                name: name, state: good ? .ok : essential ? .missing : .limited, found: found, why: why,
                advice: good ? nil : advice, essential: essential))
    }

    // MARK: - Kernel and processor

    /// Major and minor of a release such as "6.7.0-rc1".
    static func version(of release: String) -> (major: Int, minor: Int)? {
        let numbers = release.split(whereSeparator: { !$0.isNumber }).prefix(2).compactMap { Int($0) }
        return numbers.count == 2 ? (numbers[0], numbers[1]) : nil
    }

    private mutating func probeSystem() {
        var names = utsname()
        uname(&names)
        facts.release = text(&names.release)
        facts.architecture = text(&names.machine)
        let version = Self.version(of: facts.release) ?? (0, 0)
        add("kernel", version >= (6, 7), facts.release, "page tracking came with Linux 6.7", "boot Linux 6.7 or newer")
        add(
            "architecture", facts.architecture == "x86_64", facts.architecture,
            "registers are captured on x86-64 so far",
            "use an x86-64 machine")
        do {
            facts.vdso = try VDSO()
            add(
                "vDSO", facts.vdso.layout.contains { $0.hasPrefix("[vdso]") },
                "\(facts.vdso.digest), \(facts.vdso.layout.joined(separator: ", "))",
                "both hosts must map the same one", "boot without vdso=0")
        } catch {
            add("vDSO", false, "\(error)", "both hosts must map the same one", "mount /proc without restrictions")
        }
    }

    private mutating func probeProcessor() {
        for line in ((try? SmallFile.text("/proc/cpuinfo")) ?? "").split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1).map { $0.drop { $0 == " " || $0 == "\t" } }
            guard parts.count == 2 else { continue }
            let value = parts[1]
            if line.hasPrefix("model name") { facts.processor = String(value) }
            if line.hasPrefix("flags") || line.hasPrefix("Features") {
                facts.processorFeatures = value.split(separator: " ").map(String.init).sorted()
                break
            }
        }
        var leaf: [UInt32] = [0, 0, 0, 0]
        clx_cpuid(0xD, 0, &leaf)
        facts.xsaveSize = leaf[1]
        facts.xsaveMask = UInt64(leaf[3]) << 32 | UInt64(leaf[0])
        add(
            "xsave", facts.xsaveSize > 0,
            "\(facts.xsaveSize) bytes, parts 0x\(String(facts.xsaveMask, radix: 16)), \(facts.processorFeatures.count) features",
            "registers move as the processor saves them", "use a processor with xsave")
    }

    // MARK: - Memory tracking

    private mutating func probeMemoryTracking() {
        let why = "tells which pages changed while the container runs"
        let tracking = UInt64(
            CLX_UFFD_FEATURE_WP_ASYNC | CLX_UFFD_FEATURE_WP_UNPOPULATED | CLX_UFFD_FEATURE_WP_HUGETLBFS_SHMEM)
        let events = UInt64(
            CLX_UFFD_FEATURE_EVENT_FORK | CLX_UFFD_FEATURE_EVENT_REMAP | CLX_UFFD_FEATURE_EVENT_REMOVE
                | CLX_UFFD_FEATURE_EVENT_UNMAP)
        let tracker: FileDescriptor
        do {
            // Events are only asked for, never used on this process: nobody would read them, and another thread that
            // starts a child waits until somebody does, with a copy of the descriptor in the child that keeps it open.
            _ = try Self.userfaultfd(features: tracking | events)
            tracker = try Self.userfaultfd(features: tracking)
            add("userfaultfd", true, "asynchronous write-protection and mapping events", why, "")
        } catch {
            add(
                "userfaultfd", false, "\(error)", why,
                "needs CONFIG_USERFAULTFD, Linux 6.7 and CAP_SYS_PTRACE (or vm.unprivileged_userfaultfd=1)")
            add("PAGEMAP_SCAN", false, "not tried without userfaultfd", why, "see userfaultfd")
            return
        }
        do {
            try Self.tryTracking(tracker)
            add("PAGEMAP_SCAN", true, "a write to a protected page was found", why, "")
        } catch {
            add("PAGEMAP_SCAN", false, "\(error)", why, "boot Linux 6.7 or newer with CONFIG_PROC_PAGE_MONITOR")
        }
    }

    private static func userfaultfd(features: UInt64) throws(KernelError) -> FileDescriptor {
        let flags = UInt64(O_CLOEXEC | O_NONBLOCK)
        let number = try check(
            clx_syscall(Int(323 /* SYS_userfaultfd on x86-64 */), flags, 0, 0, 0, 0, 0), "userfaultfd")
        let descriptor = FileDescriptor(owning: Int32(number))
        var api = clx_uffdio_api(api: 0xAA, features: features, ioctls: 0)
        try check(clx_ioctl(descriptor.number, clx_UFFDIO_API, &api), "asking userfaultfd for its features")
        return descriptor
    }

    /// Protects a page of ours, writes to it, and asks whether the scan saw it.
    private static func tryTracking(_ tracker: FileDescriptor) throws(KernelError) {
        let size = Int(getpagesize())
        // SAFETY: a fresh private mapping of one page, used only here and unmapped at the end.
        guard let page = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), page != MAP_FAILED
        else { throw KernelError("mapping a page", Errno(errno)) }
        defer { munmap(page, size) }
        let byte = page.assumingMemoryBound(to: UInt8.self)
        byte.pointee = 1
        let start = UInt64(UInt(bitPattern: page))
        var registration = clx_uffdio_register(
            start: start, len: UInt64(size), mode: UInt64(CLX_UFFDIO_REGISTER_MODE_WP), ioctls: 0)
        try check(clx_ioctl(tracker.number, clx_UFFDIO_REGISTER, &registration), "tracking a page")
        let pagemap = try FileDescriptor(opening: "/proc/self/pagemap", O_RDONLY)
        func scan() throws(KernelError) -> Int {
            var region = clx_page_region()
            var argument = clx_pm_scan_arg()
            argument.size = UInt64(MemoryLayout<clx_pm_scan_arg>.size)
            argument.flags = UInt64(CLX_PM_SCAN_WP_MATCHING)
            argument.start = start
            argument.end = start + UInt64(size)
            argument.vec_len = 1
            argument.category_mask = UInt64(CLX_PAGE_IS_WRITTEN)
            argument.return_mask = UInt64(CLX_PAGE_IS_WRITTEN)
            let count = withUnsafeMutablePointer(to: &region) { pointer in
                argument.vec = UInt64(UInt(bitPattern: pointer))
                return clx_ioctl(pagemap.number, clx_PAGEMAP_SCAN, &argument)
            }
            return Int(try check(count, "scanning a page"))
        }
        _ = try scan()
        guard try scan() == 0 else { throw KernelError("a page that was not written is reported as written", .invalid) }
        byte.pointee = 2
        guard try scan() == 1 else { throw KernelError("a written page is not reported", .invalid) }
    }

    // MARK: - Another process

    private mutating func probeOtherProcess() {
        let why = "the engine reads and steers the container's processes from outside"
        guard
            let program = ["/bin/sleep", "/usr/bin/sleep"].first(where: { (path: String) in access(path, X_OK) == 0 })
        else {
            return add("ptrace", false, "no sleep(1) to try it on", why, "install coreutils")
        }
        let (pid, pidfd) = SpawnPlan(path: program, arguments: ["sleep", "60"]).spawn()
        guard pid > 0 else {
            return add("ptrace", false, "starting a child: \(Errno(-pid))", why, "free some memory or PIDs")
        }
        let handle = FileDescriptor(owning: pidfd)
        defer {
            _ = clx_pidfd_send_signal(handle.number, SIGKILL)
            var status: Int32 = 0
            while clx_waitpid(pid, &status, 0) == -EINTR {}
        }
        let advice = "run as root with CAP_SYS_PTRACE; check kernel.yama.ptrace_scope is below 3"
        tryIt("ptrace", why, advice) { () throws(KernelError) in
            try check(clx_ptrace(0x4206 /* PTRACE_SEIZE */, pid, 0, 0), "seizing a child")
            try check(clx_ptrace(0x4207 /* PTRACE_INTERRUPT */, pid, 0, 0), "interrupting a child")
            var status: Int32 = 0
            try check(clx_waitpid(pid, &status, 0x4000_0000 /* __WALL */), "waiting for a child's stop")
            try check(clx_ptrace(17 /* PTRACE_DETACH */, pid, 0, 0), "letting a child go")
        }
        tryIt("pidfd_getfd", "descriptors are looked at through copies of them", advice) { () throws(KernelError) in
            let copy = try check(clx_pidfd_getfd(handle.number, 0), "copying a child's descriptor")
            close(copy)
        }
        tryIt("process_vm", "pages are read while the program runs", advice) { () throws(KernelError) in
            let line = try SmallFile.text("/proc/\(pid)/maps").split(separator: "-", maxSplits: 1)
            guard let address = line.first.flatMap({ UInt64($0, radix: 16) }) else {
                throw KernelError("reading a child's maps", .invalid)
            }
            var buffer = [UInt8](repeating: 0, count: 64)
            let read = buffer.withUnsafeMutableBytes { bytes in
                var local = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
                var remote = iovec(iov_base: UnsafeMutableRawPointer(bitPattern: UInt(address)), iov_len: bytes.count)
                return clx_process_vm_readv(pid, &local, 1, &remote, 1)
            }
            try check(read, "reading a child's memory")
        }
        tryIt(
            "clone3 set_tid", "processes keep their PIDs and TIDs",
            "needs CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN and CONFIG_PID_NS"
        ) { () throws(KernelError) in
            try check(clx_try_set_tid(4711), "making a child with a chosen PID")
        }
    }

    private mutating func tryIt(
        _ name: String, _ why: String, _ advice: String, essential: Bool = true, _ body: () throws(KernelError) -> Void
    ) {
        do {
            try body()
            add(name, true, "works", why, advice, essential: essential)
        } catch {
            add(name, false, "\(error)", why, advice, essential: essential)
        }
    }

    // MARK: - Privileges

    /// Capabilities by number (include/uapi/linux/capability.h), those that the engine or the restore uses.
    private static let needed: [(name: String, number: Int)] = [
        ("CHOWN", 0), ("DAC_OVERRIDE", 1), ("FOWNER", 3), ("KILL", 5), ("SETGID", 6), ("SETUID", 7), ("SETPCAP", 8),
        ("NET_BIND_SERVICE", 10), ("NET_ADMIN", 12), ("NET_RAW", 13), ("IPC_LOCK", 14), ("SYS_CHROOT", 18),
        ("SYS_PTRACE", 19), ("SYS_ADMIN", 21), ("MKNOD", 27), ("SETFCAP", 31), ("CHECKPOINT_RESTORE", 40),
    ]

    private mutating func probePrivileges() {
        let status = (try? SmallFile.text("/proc/self/status")) ?? ""
        let held =
            status.split(separator: "\n").first { $0.hasPrefix("CapEff:") }
            .flatMap { UInt64($0.dropFirst(7).drop { $0 == "\t" }, radix: 16) } ?? 0
        let lacking = Self.needed.filter { held >> UInt64($0.number) & 1 == 0 }.map { "CAP_" + $0.name }
        add(
            "capabilities", lacking.isEmpty,
            lacking.isEmpty ? "all that are needed" : "without \(lacking.joined(separator: ", "))",
            "capture and restore act on other users' processes", "run as root, outside of a restricted container")
        let resources = held >> 24 & 1 == 1
        add(
            "CAP_SYS_RESOURCE", resources, resources ? "held" : "not held",
            "without it a lower OOM score, hard limits above ours and large pipes cannot be restored, and are refused",
            "give it to the agent if containers need those", essential: false)
        // PR_SET_MM (35), PR_SET_MM_MAP_SIZE (15): exists only with CONFIG_CHECKPOINT_RESTORE, and asks for no rights.
        var size: UInt32 = 0
        let result = withUnsafeMutablePointer(to: &size) { clx_prctl(35, 15, UInt64(UInt(bitPattern: $0)), 0, 0) }
        add(
            "CONFIG_CHECKPOINT_RESTORE", result == 0, result == 0 ? "built in" : "\(Errno(-result))",
            "a process's own addresses (heap, arguments) are set through it",
            "use a kernel built with it, as Debian's are")
    }

    // MARK: - Cgroups, events, network, memory

    private mutating func probeCgroups() {
        let cgroup2: Int64 = 0x6367_7270
        let mounts = ((try? SmallFile.text("/proc/self/mountinfo")) ?? "").split(separator: "\n")
        let isV2 = clx_filesystem_type("/sys/fs/cgroup") == cgroup2
        let alsoV2 = mounts.contains { $0.contains(" - cgroup2 ") }
        let freezerV1 = mounts.contains {
            $0.contains(" - cgroup ") && $0.split(separator: " ").last?.contains("freezer") == true
        }
        facts.cgroups = isV2 ? "v2" : alsoV2 ? "hybrid" : mounts.contains { $0.contains(" - cgroup ") } ? "v1" : ""
        let freezer = isV2 || freezerV1
        add(
            "cgroup freezer", freezer,
            facts.cgroups.isEmpty
                ? "no cgroups are mounted" : "\(facts.cgroups) layout\(freezer ? "" : " without a freezer")",
            "holds the source from the promise on, even if its agent dies",
            "mount cgroup v2 on /sys/fs/cgroup, or the v1 freezer controller")
    }

    private mutating func probeFaultEvents() {
        let folders = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        facts.faultEvents = folders.contains { access("\($0)/events/exceptions/page_fault_user/id", R_OK) == 0 }
        add(
            "page-fault tracepoint", facts.faultEvents, facts.faultEvents ? "available" : "not found",
            "MiGrror can notice writes as events (`--events faults`); scans work without",
            "mount -t tracefs tracefs /sys/kernel/tracing", essential: false)
    }

    private mutating func probeNetwork() {
        let advice = "needs CAP_NET_ADMIN"
        tryIt("TCP_REPAIR", "established TCP connections move with the container", advice) { () throws(KernelError) in
            let number = try checkC(
                socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0), "making a socket")
            let holder = FileDescriptor(owning: number)
            var on: Int32 = 1
            try checkC(
                setsockopt(holder.number, Int32(IPPROTO_TCP), 19 /* TCP_REPAIR */, &on, 4), "setting TCP_REPAIR")
        }
        tryIt(
            "tbf queue", "holds frames that arrive during the downtime, so that clients need not send them again",
            "load the module sch_tbf (CONFIG_NET_SCH_TBF)", essential: false, Self.tryTbf)
    }

    /// Asks for a tbf queue without parameters, in a network namespace of this thread's own: a kernel that knows it
    /// misses the parameters (EINVAL), one that does not says ENOENT.
    private static func tryTbf() throws(KernelError) {
        try OwnThread.run("apus-probe") { () throws(KernelError) -> Void in
            try check(clx_unshare(0x4000_0000 /* CLONE_NEWNET */), "making a network namespace")
            let number = socket(
                AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0 /* NETLINK_ROUTE */)
            let holder = FileDescriptor(owning: try checkC(number, "opening a netlink socket"))
            var message: [UInt32] = [
                0, 36 /* RTM_NEWQDISC */ | 0x0605 << 16 /* REQUEST, ACK, CREATE, EXCL */, 1, 0,
                0 /* family */, 1 /* lo */, 0, 0xffff_ffff /* TC_H_ROOT */, 0,
                8 | 1 << 16 /* TCA_KIND */, 0x0066_6274 /* "tbf" */,
            ]
            message[0] = UInt32(message.count * 4)
            try checkC(send(holder.number, message, message.count * 4, 0), "asking for a tbf queue")
            var answer = [UInt8](repeating: 0, count: 4096)
            let size = try checkC(recv(holder.number, &answer, answer.count, 0), "asking for a tbf queue")
            // struct nlmsghdr, then the error number of struct nlmsgerr.
            guard size >= 20 else { throw KernelError("asking for a tbf queue", .invalid) }
            let result = answer.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 16, as: Int32.self) }
            if result != -EINVAL { try check(result, "asking for a tbf queue") }
        }.get()
    }

    private mutating func probeMemory() {
        for line in ((try? SmallFile.text("/proc/meminfo")) ?? "").split(separator: "\n")
        where line.hasPrefix("MemAvailable:") {
            facts.availableMemory = (line.split(separator: " ").dropFirst().first.flatMap { UInt64($0) } ?? 0) << 10
        }
        add(
            "time namespaces", Clocks.areSupported, Clocks.areSupported ? "there" : "not there",
            "a container keeps its monotonic clock on a host that booted at another time",
            "boot a kernel with CONFIG_TIME_NS",
            essential: false)
        facts.overcommit = (try? SmallFile.text("/proc/sys/vm/overcommit_memory")).flatMap { Int($0) } ?? 0
        let enough = facts.availableMemory >= 256 << 20
        add(
            "free memory", enough, "\(facts.availableMemory >> 20) MiB available",
            "a container's memory must fit on the destination",
            "free some memory", essential: false)
        add(
            "vm.overcommit_memory", facts.overcommit != 2, "\(facts.overcommit)",
            "with 2 a destination may refuse large sparse mappings that the source has",
            "sysctl vm.overcommit_memory=0", essential: false)
    }

    private func text<T>(_ field: inout T) -> String {
        withUnsafeBytes(of: &field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}

// The descriptor table at the source: which number is which open file, what each file is, and what cannot be carried.
import CLinux
import Glibc
import LinuxKernel

enum DescriptorTable {
    // ---- Capture -------------------------------------------------------------------------------------------

    /// Adds the questions only the process can answer: the flags of each number.
    static func ask(_ numbers: some Collection<Int32>, _ batch: inout CallBatch) -> [Int] {
        numbers.map { batch.call(.fcntl, .int($0), .int(F_GETFD), doing: "reading the flags of fd \($0)") }
    }

    /// What the capture of a descriptor table gives.
    struct Collected {
        var files: [OpenFile]
        /// The table itself.
        var descriptors: [Descriptor]
        /// What is captured last.
        var late: [any LateCapture]
        /// The inodes of the regular files that are open for writing.
        var written: Set<UInt64>
    }

    /// Captures the open files of a stopped process, and which numbers lead to each.
    ///
    /// - Parameters:
    ///   - flags: what F_GETFD says of each number.
    ///   - between: called now and then; what it throws ends the capture.
    static func collect(
        _ open: OpenFiles, _ pidfd: FileDescriptor, _ flags: [Int32: Int64], _ context: DescriptorContext,
        between: () throws -> Void
    ) throws -> Collected {
        let files = open.files, pid = open.pid
        var late: [ObjectIdentifier: [Int: DescriptorProbe]] = [:], written: Set<UInt64> = []
        var index: [Int32: Int] = [:], census = DescriptorCensus()
        var images: [OpenFile] = [], descriptors: [Descriptor] = []
        images.reserveCapacity(files.count)
        for (file, numbers) in files.enumerated() {
            if file % 64 == 0 { try between() }
            let probe = try DescriptorProbe(numbers[0], of: pid, pidfd)
            let kind = try carriedKind(of: probe, context)
            images.append(try capture(probe, kind, context))
            if kind.late != nil { late[ObjectIdentifier(kind), default: [:]][file] = probe }
            if probe.type == S_IFREG, probe.flags & O_ACCMODE != O_RDONLY {
                written.insert(UInt64(probe.status.st_ino))
            }
            try census.note(probe, context)
            for number in numbers {
                index[number] = file
                var descriptor = Descriptor()
                descriptor.number = number
                descriptor.closeOnExec = (flags[number] ?? 0) & Int64(FD_CLOEXEC) != 0
                descriptor.file = UInt32(file)
                descriptors.append(descriptor)
            }
        }
        for (file, numbers) in files.enumerated() {
            guard case .epoll(var set) = images[file].kind else { continue }
            if let item = EpollKind.resolve(&set, number: numbers[0], open, index: index) {
                throw EngineError.obstacles([EpollKind.orphan(item, of: numbers[0], pid)])
            }
            images[file].epoll = set
        }
        let obstacles = census.obstacles
        if !obstacles.isEmpty { throw EngineError.obstacles(obstacles) }
        let captures = descriptorKinds.compactMap { kind in
            late[ObjectIdentifier(kind)].flatMap { files in kind.late.map { $0.init(files) } }
        }
        return Collected(files: images, descriptors: descriptors, late: captures, written: written)
    }

    private static func capture(
        _ probe: DescriptorProbe, _ kind: any DescriptorKind.Type, _ context: DescriptorContext
    ) throws -> OpenFile {
        var file = OpenFile()
        file.flags = UInt32(bitPattern: probe.flags & ~O_CLOEXEC)
        file.owner = clx_fcntl(probe.copy.number, F_GETOWN, 0)
        file.ownerSignal = clx_fcntl(probe.copy.number, 11, 0)  // F_GETSIG
        file.kind = try kind.capture(probe, context)
        return file
    }

    /// - Throws: what is in the way of carrying it.
    private static func carriedKind(of probe: DescriptorProbe, _ context: DescriptorContext) throws
        -> any DescriptorKind.Type
    {
        guard let kind = kind(of: probe, context), obstacle(probe, kind) == nil else {
            throw EngineError.obstacles([self.obstacle(probe, context)!])
        }
        return kind
    }

    private static func kind(of probe: DescriptorProbe, _ context: DescriptorContext) -> (any DescriptorKind.Type)? {
        if context.streams[.init(probe.status)] != nil { return StreamKind.self }
        return descriptorKinds.first { $0.matches(probe) }
    }

    // ---- Obstacles -----------------------------------------------------------------------------------------

    /// What of the descriptors of a process cannot be carried. It may run: one that it closes meanwhile is none.
    static func obstacles(_ context: InspectContext, _ descriptors: DescriptorContext, _ open: inout OpenFiles) throws
        -> [Obstacle]
    {
        let pidfd = FileDescriptor(owning: try check(clx_pidfd_open(context.pid, 0), "opening pid \(context.pid)"))
        try open.look()
        let files = open.files
        var found: [Obstacle] = [], census = DescriptorCensus(), index: [Int32: Int] = [:], sockets = 0
        var sets: [(number: Int32, set: EpollSet)] = []
        for (file, numbers) in files.enumerated() {
            for number in numbers { index[number] = file }
            let probe: DescriptorProbe
            do throws(KernelError) { probe = try DescriptorProbe(numbers[0], of: context.pid, pidfd) } catch {
                if error.errno.rawValue == EBADF { continue }
                throw error
            }
            if let obstacle = obstacle(probe, descriptors) { found.append(obstacle) }
            try census.note(probe, descriptors)
            if probe.type == S_IFSOCK { sockets += 1 }
            if EpollKind.matches(probe), case .epoll(let set) = try EpollKind.capture(probe, descriptors) {
                sets.append((numbers[0], set))
            }
        }
        for (number, set) in sets {
            var set = set
            guard EpollKind.resolve(&set, number: number, open, index: index) != nil else { continue }
            // What was opened and added since the look is no orphan.
            guard let item = try lastingOrphan(in: number, context.pid, pidfd, descriptors, &open) else { continue }
            found.append(EpollKind.orphan(item, of: number, context.pid))
        }
        if let reason = EngineDescriptors.reasonAgainst(sockets) {
            found.append(context.obstacle("descriptors", reason))
        }
        return found + census.obstacles
    }

    /// Looks at an epoll set of a running process several times: an item that every look finds without a file is one.
    private static func lastingOrphan(
        in number: Int32, _ pid: Int32, _ pidfd: FileDescriptor, _ descriptors: DescriptorContext,
        _ open: inout OpenFiles
    ) throws -> Int32? {
        var item: Int32?
        for _ in 0..<5 {
            try open.look()
            var index: [Int32: Int] = [:]
            for (file, numbers) in open.files.enumerated() { for number in numbers { index[number] = file } }
            let probe: DescriptorProbe
            do throws(KernelError) { probe = try DescriptorProbe(number, of: pid, pidfd) } catch {
                if error.errno.rawValue == EBADF { return nil }
                throw error
            }
            guard EpollKind.matches(probe), case .epoll(var set) = try EpollKind.capture(probe, descriptors) else {
                return nil
            }
            item = EpollKind.resolve(&set, number: number, open, index: index)
            if item == nil { return nil }
        }
        return item
    }

    private static func obstacle(_ probe: DescriptorProbe, _ context: DescriptorContext) -> Obstacle? {
        if let reason = uncarriedUse(probe) { return named(probe, "\(reason), not carried yet") }
        guard let kind = kind(of: probe, context) else {
            return named(probe, "\(probe.type == S_IFSOCK ? socketName(probe) : probe.link), not carried yet")
        }
        if kind == PathFileKind.self, !context.acceptsInodeNumbers, let reason = PathFileKind.remembersInode(probe) {
            return named(probe, reason)
        }
        return obstacle(probe, kind)
    }

    private static func obstacle(_ probe: DescriptorProbe, _ kind: any DescriptorKind.Type) -> Obstacle? {
        if let reason = uncarriedUse(probe) { return named(probe, "\(reason), not carried yet") }
        return kind.obstacle(probe).map { named(probe, $0) }
    }

    /// What a file of any kind can be used for that is not carried.
    private static func uncarriedUse(_ probe: DescriptorProbe) -> String? {
        let fd = probe.copy.number
        if probe.flags & 0o10000000 != 0 { return "\(probe.link), opened for its path alone (O_PATH)" }
        // F_GETLEASE; a lease has O_ASYNC besides.
        if probe.type == S_IFREG, [F_RDLCK, F_WRLCK].contains(clx_fcntl(fd, 1025, 0)) {
            return "lease on \(probe.link)"
        }
        // F_NOTIFY shows by the owner that it gives the descriptor alone.
        if probe.type == S_IFDIR, clx_fcntl(fd, F_GETOWN, 0) != 0 {
            return "directory \(probe.link) with an owner for signals (F_NOTIFY, F_SETOWN)"
        }
        if probe.flags & 0o20000 != 0 { return "signal-driven I/O (O_ASYNC)" }
        if probe.link == "/secretmem (deleted)" {
            // No file of that name in the container's root: it is on a file system of its own.
            var root = stat()
            if stat("/proc/\(probe.pid)/root", &root) == 0, root.st_dev != probe.status.st_dev { return "memfd_secret" }
        }
        return nil
    }

    /// What kind of socket a link does not tell.
    private static func socketName(_ probe: DescriptorProbe) -> String {
        func option(_ name: Int32) -> Int32 { (try? TCPSocket.get(probe.copy.number, SOL_SOCKET, name)) ?? -1 }
        let families = [AF_UNIX: "unix", AF_INET: "IPv4", AF_INET6: "IPv6", AF_NETLINK: "netlink", AF_PACKET: "packet"]
        let types: [Int32: String] = [1: "stream", 2: "datagram", 3: "raw", 5: "sequenced packet"]
        let family = option(SO_DOMAIN), type = option(SO_TYPE)
        return "\(families[family] ?? "family \(family)") \(types[type] ?? "type \(type)") socket"
    }

    static func named(_ probe: DescriptorProbe, _ reason: String) -> Obstacle { named(probe.number, probe.pid, reason) }
    static func named(_ number: Int32, _ pid: Int32, _ reason: String) -> Obstacle {
        Obstacle(pid: pid, process: processName(pid), subject: "fd \(number)", reason: reason)
    }
}

/// The engine's own descriptors: it holds a copy of each of a process's sockets, and in this process many migrations
/// share one limit.
enum EngineDescriptors {
    /// Makes room for copies; why it cannot, or nil.
    static func reasonAgainst(_ copies: Int) -> String? {
        var soft: UInt64 = 0, hard: UInt64 = 0
        guard clx_prlimit(0, Int32(RLIMIT_NOFILE.rawValue), 0, 0, 0, &soft, &hard) == 0 else { return nil }
        let wanted = UInt64(2 * copies + 1000)
        if wanted <= soft { return nil }
        // As far as it goes, and no further than needed: what this process starts inherits it.
        let raised = min(wanted, hard)
        _ = clx_prlimit(0, Int32(RLIMIT_NOFILE.rawValue), raised, hard, 1, &soft, &hard)
        if UInt64(copies + 500) <= raised { return nil }
        return "\(copies) sockets, and this host's agent may open \(hard): give it a higher limit (RLIMIT_NOFILE)"
    }
}

// What a peer or a file describes is hostile until it has been checked: restore takes only what has passed here. Every
// reference from one object to another is checked here, once; what a kind of open file says of itself, by its kind. What
// the kernel refuses by itself is left to the kernel.
import CLinux
import Glibc
import LinuxKernel

/// The layout of an address space that can be made: in ascending order, not overlapping, whole pages.
public struct CheckedLayout: Sendable {
    public let areas: [MemoryArea]

    public init(_ areas: [MemoryArea]) throws(EngineError) {
        var end: UInt64 = 0
        for area in areas {
            try ImageCheck.need(
                area.start >= end && area.start < area.end, "memory 0x\(hex(area.start))-0x\(hex(area.end))")
            try ImageCheck.need(
                area.start % pageSize == 0 && area.end % pageSize == 0, "memory that is not of whole pages")
            end = area.end
            try Self.check(area)
        }
        self.areas = areas
    }

    private static func check(_ area: MemoryArea) throws(EngineError) {
        // [vsyscall] is the one mapping above a program's own.
        try ImageCheck.need(area.end <= 1 << 47 || area.kind == .vsyscall, "memory up to 0x\(hex(area.end))")
        try ImageCheck.need(area.protection <= 7, "memory with protection \(area.protection)")
        try ImageCheck.need(area.offset % pageSize == 0 && area.offset <= 1 << 62, "memory at offset \(area.offset)")
        try ImageCheck.need(area.name.utf8.count < 80 && !area.name.utf8.contains(0), "a mapping's name")
        switch area.kind {
        case .privateFile, .sharedFile: try ImageCheck.path(area.path)
        case .anonymous, .stack, .sharedAnonymous, .vdso, .vvar, .vsyscall: break
        case .UNRECOGNIZED(let kind): throw .invalidImage("memory of kind \(kind)")
        }
    }
}

/// A process tree that can be made, as far as an image tells.
public struct CheckedTree: Sendable {
    public private(set) var tree: TreeImage
    /// The threads of each process, in the tree's order; empty until they are added.
    public private(set) var threads: [ProcessThreads] = []
    /// The kind of each of the tree's open files.
    let kinds: [any (DescriptorKind & Sendable).Type]

    /// - Throws: what in it cannot be.
    public init(_ tree: TreeImage) throws(EngineError) {
        guard tree.version == TreeImage.currentVersion else {
            throw .invalidImage("format \(tree.version), this engine reads \(TreeImage.currentVersion)")
        }
        self.tree = tree
        var kinds: [any (DescriptorKind & Sendable).Type] = []
        kinds.reserveCapacity(tree.files.count)
        for file in tree.files {
            guard let content = file.kind, let kind = descriptorKinds.first(where: { $0.made(content) }) else {
                throw .invalidImage("an open file of unknown kind")
            }
            try kind.validate(file)
            kinds.append(kind)
        }
        self.kinds = kinds
        try checkReferences()
        for process in tree.processes { try Self.check(process) }
        for space in tree.spaces { try Self.check(space) }
    }

    /// A process with the objects that it refers to.
    ///
    /// - Parameter index: its place in the tree.
    func parts(of index: Int) -> ProcessParts {
        let process = tree.processes[index]
        return ProcessParts(
            process: process, space: tree.spaces[Int(process.space)],
            descriptors: tree.tables[Int(process.table)].descriptors,
            threads: hasThreads ? threads[index] : ProcessThreads())
    }

    /// - Throws: that there are several.
    func onlyProcess() throws(EngineError) -> ProcessParts {
        let count = tree.processes.count
        guard count == 1 else { throw .invalidImage("\(count) processes, of which one can be made yet") }
        return parts(of: 0)
    }

    /// Adds the threads, which are captured after the rest. Once.
    public mutating func add(_ threads: [ProcessThreads]) throws(EngineError) {
        try ImageCheck.need(!hasThreads, "threads that come a second time")
        try ImageCheck.need(
            threads.map(\.pid) == tree.processes.map(\.pid), "threads of other processes than the image has")
        var tids = Set<Int32>()
        for process in threads {
            try ImageCheck.need(
                process.threads.contains { $0.tid == process.pid }, "pid \(process.pid) without its first thread")
            for thread in process.threads {
                try ImageCheck.need(tids.insert(thread.tid).inserted, "two threads of TID \(thread.tid)")
                try Self.check(thread)
            }
            for record in process.pending { try Self.check(signal: record) }
            try Self.check(process.timers)
        }
        self.threads = threads
    }

    /// The threads have been added.
    public var hasThreads: Bool { !threads.isEmpty }

    /// Adds what was captured last, by the index of its file.
    public mutating func complete(_ late: [UInt32: LateState]) throws(EngineError) {
        let kinds = kinds
        try tree.editFiles { (files) throws(EngineError) in
            for (index, state) in late {
                guard Int(index) < files.count, try kinds[Int(index)].complete(&files[Int(index)], with: state) else {
                    throw .invalidImage("late state of file \(index), which cannot have it")
                }
            }
        }
    }

    // ---- References ----------------------------------------------------------------------------------------

    private func checkReferences() throws(EngineError) {
        try ImageCheck.need(!tree.processes.isEmpty, "a tree without processes")
        var pids = Set<Int32>(), spaces = Set<UInt32>(), tables = Set<UInt32>()
        for process in tree.processes {
            try ImageCheck.need(pids.insert(process.pid).inserted, "two processes of PID \(process.pid)")
            try ImageCheck.need(
                Int(process.space) < tree.spaces.count, "pid \(process.pid) without its address space")
            try ImageCheck.need(
                Int(process.table) < tree.tables.count, "pid \(process.pid) without its descriptor table")
            spaces.insert(process.space)
            tables.insert(process.table)
        }
        try ImageCheck.need(spaces.count == tree.spaces.count, "an address space of no process")
        try ImageCheck.need(tables.count == tree.tables.count, "a descriptor table of no process")
        for table in tree.tables { try checkReferences(table.descriptors) }
        for case .epoll(let set) in tree.files.lazy.compactMap(\.kind) {
            for watch in set.watches {
                try ImageCheck.need(
                    Int(watch.file) < tree.files.count, "an epoll set that watches file \(watch.file), which is none")
            }
        }
    }

    private func checkReferences(_ descriptors: [Descriptor]) throws(EngineError) {
        try ImageCheck.need(
            Set(descriptors.map(\.number)).count == descriptors.count, "two descriptors of one number")
        for descriptor in descriptors {
            // Above all of them, numbers are needed to put files aside.
            try ImageCheck.need((0..<1 << 30).contains(descriptor.number), "descriptor \(descriptor.number)")
            try ImageCheck.need(
                Int(descriptor.file) < tree.files.count, "descriptor \(descriptor.number) without its file")
        }
    }

    // ---- What is said of each process ----------------------------------------------------------------------

    private static func check(_ space: AddressSpace) throws(EngineError) {
        try ImageCheck.path(space.executable)
        try ImageCheck.need(space.auxv.count <= 4096, "an auxiliary vector of \(space.auxv.count) bytes")
    }

    private static func check(_ process: ProcessImage) throws(EngineError) {
        let settings = process.settings
        try ImageCheck.path(settings.workingDirectory)
        try ImageCheck.need(
            settings.limits.isEmpty || settings.limits.count == 32, "\(settings.limits.count) limits")
        try ImageCheck.need(settings.dumpable <= 2, "dumpable \(settings.dumpable)")
        try ImageCheck.need(settings.umask <= 0o777, "umask \(settings.umask)")
        try ImageCheck.need((-1000...1000).contains(settings.oomScoreAdj), "an OOM score of \(settings.oomScoreAdj)")
        let actions = process.signals.actions.count
        try ImageCheck.need(actions == 64 * 32, "signal actions of \(actions) bytes")
    }

    private static func check(_ thread: ThreadImage) throws(EngineError) {
        try ImageCheck.need((1...highestPID).contains(thread.tid), "thread \(thread.tid)")
        try ImageCheck.need(
            thread.registers.count == MemoryLayout<user_regs_struct>.size,
            "registers of \(thread.registers.count) bytes")
        // The legacy part and its header are the least.
        try ImageCheck.need(
            (576...65536).contains(thread.xstate.count), "register state of \(thread.xstate.count) bytes")
        try ImageCheck.need(thread.affinity.count <= 8192, "an affinity of \(thread.affinity.count) bytes")
        for record in thread.pending { try check(signal: record) }
        let credentials = thread.credentials
        try ImageCheck.need(
            credentials.uid.count == 4 && credentials.gid.count == 4, "credentials without four IDs each")
        try ImageCheck.need(credentials.groups.count <= 65536, "\(credentials.groups.count) groups")
    }

    private static func check(_ timers: TimerState) throws(EngineError) {
        try ImageCheck.need(timers.intervalTimers.count <= 3, "\(timers.intervalTimers.count) interval timers")
        for timer in timers.intervalTimers {
            try ImageCheck.need(timer.count == 32, "an interval timer of \(timer.count) bytes")
        }
        try ImageCheck.need(Set(timers.posix.map(\.id)).count == timers.posix.count, "two timers of one number")
        for timer in timers.posix {
            try ImageCheck.need(timer.id >= 0, "timer \(timer.id)")
            try ImageCheck.need(
                timer.intervalNs >= 0 && timer.remainingNs >= 0, "timer \(timer.id) with a negative time")
            try ImageCheck.need((0...64).contains(timer.signal), "timer \(timer.id) with signal \(timer.signal)")
        }
    }

    /// Signals that came after the rest of the image, by the PID of their process.
    public func check(_ late: [Int32: LateSignals]) throws(EngineError) {
        for (pid, signals) in late {
            guard let process = threads.first(where: { $0.pid == pid }) else {
                throw .invalidImage("signals for pid \(pid), which the image does not have")
            }
            for record in signals.ofProcess { try Self.check(signal: record) }
            for (tid, records) in signals.ofThreads {
                try ImageCheck.need(
                    process.threads.contains { $0.tid == tid },
                    "signals for thread \(tid), which the image does not have")
                for record in records { try Self.check(signal: record) }
            }
        }
    }

    /// A siginfo_t, whose first word is the signal's number.
    private static func check(signal record: Bytes) throws(EngineError) {
        try ImageCheck.need(record.count == 128, "a pending signal of \(record.count) bytes")
        let number = record.withUnsafeBytes { $0.loadUnaligned(as: Int32.self) }
        try ImageCheck.need((1...64).contains(number), "pending signal \(number)")
    }
}

/// PID_MAX_LIMIT.
private let highestPID: Int32 = 1 << 22

/// What everything that an image says is checked by.
enum ImageCheck {
    static func need(_ holds: Bool, _ what: @autoclosure () -> String) throws(EngineError) {
        if !holds { throw .invalidImage(what()) }
    }

    static func path(_ path: String) throws(EngineError) {
        try need(
            path.utf8.first == UInt8(ascii: "/") && path.utf8.count <= 4096 && !path.utf8.contains(0),
            "a path that is none")
    }
    /// The same for a path that need not be text.
    static func path(_ path: Bytes) throws(EngineError) {
        try need(path.first == UInt8(ascii: "/") && path.count <= 4096 && !path.contains(0), "a path that is none")
    }

    // ---- Sockets -------------------------------------------------------------------------------------------

    static func socketOptions(_ options: SocketOptions) throws(EngineError) {
        try need(options.options.count <= 256, "\(options.options.count) options of a socket")
        for option in options.options {
            try need(option.value.count <= 256, "a socket's option of \(option.value.count) bytes")
        }
    }

    static func socketFamily(_ family: Int32) throws(EngineError) {
        try need(family == AF_INET || family == AF_INET6, "a socket of family \(family)")
    }

    /// A sockaddr_in or sockaddr_in6, by the family of its socket.
    static func socketAddress(_ address: Bytes, of family: Int32) throws(EngineError) {
        try need(
            address.count == (family == AF_INET ? 16 : 28), "a socket's address of \(address.count) bytes")
        let own = address.withUnsafeBytes { $0.loadUnaligned(as: UInt16.self) }
        try need(Int32(own) == family, "an address of family \(own)")
    }
}

private func hex(_ value: UInt64) -> String { String(value, radix: 16) }

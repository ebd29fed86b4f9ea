// A process that writes pages on command, in a cgroup of its own, its memory tracked.
import CLinux
import Dispatch
import Glibc
import LinuxKernel
import Synchronization
import Testing

@testable import Memory

/// Workloads/writer, started.
final class Writer: @unchecked Sendable {
    static let program = ".build/workloads/writer"
    let pid: Int32
    let cgroup: String
    let memory: AddressRange
    private let input: UnsafeMutablePointer<FILE>, output: UnsafeMutablePointer<FILE>
    private let userfaultfd: Int32
    private let ownsCgroup: Bool
    private var tracker: DirtyTracker?
    var areas: [TrackedArea]

    /// `cgroup`: another writer's, or nil for one of its own.
    init(pages: Int, cgroup shared: String? = nil) throws {
        var toChild: [Int32] = [0, 0], fromChild: [Int32] = [0, 0]
        try checkC(pipe(&toChild), "making a pipe")
        try checkC(pipe(&fromChild), "making a pipe")
        for end in toChild + fromChild { _ = clx_fcntl(end, F_SETFD, Int(FD_CLOEXEC)) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_adddup2(&actions, toChild[0], 0)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], 1)
        var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("writer"), strdup("\(pages)"), nil]
        var pid: Int32 = 0
        let result = posix_spawn(&pid, Self.program, &actions, nil, &arguments, nil)
        posix_spawn_file_actions_destroy(&actions)
        for argument in arguments { free(argument) }
        close(toChild[0])
        close(fromChild[1])
        guard result == 0 else { throw KernelError("starting \(Self.program) (make -C Workloads)", Errno(result)) }
        self.pid = pid
        input = fdopen(toChild[1], "w")
        output = fdopen(fromChild[0], "r")
        (ownsCgroup, cgroup) = (shared == nil, try shared ?? "\(Self.unified())/apus-test-\(getpid())-\(pid)")
        var line = [CChar](repeating: 0, count: 200)
        fgets(&line, 200, output)
        let fields = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split {
            $0 == " " || $0 == "\n"
        }
        let start = UInt64(fields[1])!
        memory = start..<start + UInt64(pages) * pageSize
        userfaultfd = Int32(fields[2])!
        areas = [TrackedArea(memory, .anonymous)]
        if shared == nil { try checkC(mkdir(cgroup, 0o755), "making cgroup \(cgroup)") }
        try SmallFile.write("\(pid)", to: cgroup + "/cgroup.procs")
        // Its program's own pages are there before anybody listens: a page-fault event tells of them too.
        for command in "wtrl" { run("\(command) 0 1") }
    }

    private static func unified() throws -> String {
        for line in try SmallFile.text("/proc/self/mountinfo").split(separator: "\n") where line.contains(" - cgroup2 ")
        {
            return String(line.split(separator: " ")[4])
        }
        throw KernelError("looking for a cgroup v2 mount", .noEntry)
    }

    /// A command of the writer; the numbers of its answer.
    @discardableResult func run(_ command: String) -> [Int64] {
        send(command)
        return answer()
    }

    func send(_ command: String) {
        fputs(command + "\n", input)
        fflush(input)
    }

    func answer() -> [Int64] {
        var line = [CChar](repeating: 0, count: 200)
        guard fgets(&line, 200, output) != nil else { return [] }
        return String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            .split { $0 == " " || $0 == "\n" }.compactMap { Int64($0) }
    }

    func page(_ index: Int, count: Int = 1) -> AddressRange {
        let start = memory.lowerBound + UInt64(index) * pageSize
        return start..<start + UInt64(count) * pageSize
    }

    /// Those of the addresses that lie in its memory. Faults of its program, libraries and stacks are heard as well,
    /// whenever the kernel pleases.
    func own(_ addresses: AddressRanges) -> AddressRanges { addresses.intersection(AddressRanges([memory])) }

    /// Starts to track with the writer's own userfaultfd, and protects all of its memory.
    func track() throws {
        let pidfd = FileDescriptor(owning: try check(clx_pidfd_open(pid, 0), "opening the writer"))
        let copy = try check(clx_pidfd_getfd(pidfd.number, userfaultfd), "taking the writer's userfaultfd")
        let tracked = try Userfaultfd(FileDescriptor(owning: copy))
        run("u")
        tracker = try DirtyTracker(pid: pid, userfaultfd: tracked)
        try scan()
    }

    /// What the scan, the ground truth, says was written; protects it again.
    @discardableResult func scan() throws -> AddressRanges {
        try pass().pages
    }

    /// A pass as of a running process, or the last one; it ends when the process stops what it does between commands.
    func pass(stopped: Bool = false) throws -> DirtyPass {
        try tracker!.pass(stopped: stopped, areas: { areas }).0
    }

    /// What has content of its own now, to be sent besides what passes find.
    func contents(of ranges: AddressRanges) throws -> AddressRanges { try tracker!.contents(of: ranges, in: areas) }

    /// Has it reserve address space, which is tracked from the next pass on.
    func reserve(_ kind: TrackedKind, gibibytes: UInt64, writable: Bool = true) throws -> AddressRange {
        let number = kind == .sharedAnonymous ? 2 : writable ? 1 : 0
        let start = try #require(run("m \(number) \(gibibytes)").first)
        let range = UInt64(start)..<UInt64(start) + gibibytes << 30
        areas = (areas + [TrackedArea(range, kind)]).sorted { $0.range.lowerBound < $1.range.lowerBound }
        return range
    }

    /// A pass that finds `areas` in the maps just before the writer changes them.
    func pass(overtakenBy change: () -> Void) throws {
        var isOvertaken = false
        _ = try tracker!.pass(
            stopped: false,
            areas: {
                defer { if !isOvertaken { (isOvertaken, _) = (true, change()) } }
                return areas
            })
    }

    func end() {
        kill(pid, SIGKILL)
        waitpid(pid, nil, 0)
        tracker?.stop()
        fclose(input)
        fclose(output)
        if ownsCgroup { for _ in 0..<100 where rmdir(cgroup) != 0 { usleep(2000) } }
    }
}

/// Listens to a writer's faults. tracefs, if the source needs it, is mounted only while the events are opened.
func listen(_ writer: Writer, _ minimumPages: Int, _ source: FaultSource) throws -> FaultEvents {
    guard source == .tracepoint else {
        return try FaultEvents(
            pid: writer.pid, cgroupFolders: [writer.cgroup], minimumPages: minimumPages, source: source)
    }
    return try withTracefs { try FaultEvents(writer.pid, [writer.cgroup], minimumPages, source, tracefs: [$0]) }
}

func withTracefs<T>(_ body: (String) throws -> T) throws -> T {
    let folder = "/tmp/apus-test-tracefs-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    try checkC(mkdir(folder, 0o700), "making \(folder)")
    defer { rmdir(folder) }
    try check(clx_mount("none", folder, "tracefs", 0, nil), "mounting tracefs")
    defer { _ = clx_umount(folder, 2) }
    return try body(folder)
}

/// Waits without any time limit; 50 ms later `action` runs on another thread. Nil if nothing comes of it: a while
/// later another descriptor ends the waiting.
func waitWhile(_ events: FaultEvents, milliseconds: Int = 10_000, _ action: @escaping @Sendable () -> Void) throws
    -> FaultBatch?
{
    let giveUp = FileDescriptor(owning: clx_eventfd())
    let done = DispatchSemaphore(value: 0), returned = Flag(), gaveUp = Flag()
    try OwnThread.start("test-action") {
        usleep(50_000)
        action()
        for _ in 0..<milliseconds where !returned.isSet { usleep(1000) }
        gaveUp.set()
        var one: UInt64 = 1
        write(giveUp.number, &one, 8)
        done.signal()
    }
    defer { done.wait() }
    defer { returned.set() }
    let batch = try events.wait(timeoutMilliseconds: -1, wake: [giveUp.number])
    return gaveUp.isSet ? nil : batch
}

final class Flag: Sendable {
    private let value = Mutex(false)
    var isSet: Bool { value.withLock { $0 } }
    func set() { value.withLock { $0 = true } }
}

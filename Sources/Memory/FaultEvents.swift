// A program's writes noticed as they happen: the first write to a protected page is a page fault, and the kernel tells
// of it. What it tells is only the trigger of a sync; a scan says what changed.
import CLinux
import Glibc
import LinuxKernel

/// Page faults noticed.
public struct FaultBatch: Sendable {
    /// Distinct pages.
    public var pages = 0
    public var addresses = AddressRanges()
    /// When the first of them faulted (CLOCK_MONOTONIC, nanoseconds): the age of what is not sent yet.
    public var since: Int64?
    /// The kernel had to drop some: there are more pages than these.
    public var lost = false
}

/// The write faults of one process, of all its threads, those born later included.
///
/// Events are opened per CPU on the container's cgroup. One thread uses an object at a time. What no fault
/// tells of: writes through get_user_pages (process_vm_writev, O_DIRECT reads) and other processes' writes to shared
/// memory.
public final class FaultEvents {
    public let pid: Int32
    public let source: FaultSource
    /// How many distinct pages make an event.
    public let minimumPages: Int
    private var rings: [FaultRing]
    private var pending: Set<UInt64> = []
    private var since: Int64?
    private var lost = false

    /// Why faults of such a cgroup cannot be heard of here, or nil if they can. Without folders the question is about
    /// the kernel only.
    public static func availability(_ source: FaultSource = .softwareEvent, cgroupFolders: [String] = []) -> String? {
        unavailability(source, cgroupFolders, tracefs: FaultKinds.tracefs)
    }

    static func unavailability(_ source: FaultSource, _ folders: [String], tracefs: [String]) -> String? {
        do throws(KernelError) {
            let kinds = try FaultKinds(source, tracefs: tracefs)
            if folders.isEmpty {
                _ = try FaultRing.open(kinds, target: 0, isCgroup: false, cpu: -1, watermark: 1)
            } else {
                _ = try cgroup(of: folders, kinds)
            }
            return nil
        } catch { return "\(error)" }
    }

    /// Starts to listen.
    ///
    /// `cgroupFolders`: the container's own folders in every hierarchy; the one that perf events go by is found by
    /// trying (the unified one, or v1's perf_event where that is mounted).
    public convenience init(
        pid: Int32, cgroupFolders: [String], minimumPages: Int = 1, source: FaultSource = .softwareEvent
    ) throws(KernelError) {
        try self.init(pid, cgroupFolders, minimumPages, source, tracefs: FaultKinds.tracefs)
    }

    init(_ pid: Int32, _ folders: [String], _ minimumPages: Int, _ source: FaultSource, tracefs: [String])
        throws(KernelError)
    {
        precondition(minimumPages > 0)
        (self.pid, self.source, self.minimumPages, rings) = (pid, source, minimumPages, [])
        let kinds = try FaultKinds(source, tracefs: tracefs)
        let cgroup = try Self.cgroup(of: folders, kinds)
        let cpus = try onlineCPUs()
        // Each CPU has a ring and a watermark of its own. Half of an even share keeps what may lie unnoticed in all
        // rings together below half an event; up to twice as many pages as CPUs, every fault wakes and it is exact.
        let share = max(1, minimumPages / (2 * cpus.count))
        let record = source.recordSize
        // Four events' worth on each CPU, for one may take it all while we are not given a CPU.
        var size = 128 << 10
        while size < 4 * minimumPages * record && size < 1 << 20 { size *= 2 }
        let watermark = min(share * record, size / 2) - 1
        for cpu in cpus {
            rings.append(
                try FaultRing(
                    cgroup: cgroup, cpu: cpu, kinds: kinds, recordSize: record, watermark: watermark, size: size))
        }
    }

    /// The folder among a container's that perf events go by.
    private static func cgroup(of folders: [String], _ kinds: FaultKinds) throws(KernelError) -> FileDescriptor {
        let cpu = try onlineCPUs()[0]
        var failure = KernelError("looking for the container's own cgroup in the unified hierarchy", .noEntry)
        for folder in folders {
            do throws(KernelError) {
                let descriptor = try FileDescriptor(opening: folder, O_RDONLY | O_DIRECTORY)
                _ = try FaultRing.open(kinds, target: descriptor.number, isCgroup: true, cpu: cpu, watermark: 1)
                return descriptor
            } catch {
                // ENOENT: a hierarchy that perf events do not go by.
                guard error.errno != .noEntry || folders.count == 1 else { continue }
                failure = KernelError("\(error.operation), cgroup \(folder)", error.errno)
            }
        }
        throw failure
    }

    /// Waits until `minimumPages` distinct pages have faulted since the last batch, or events were lost.
    ///
    /// Nil when the time is up (-1: never) or one of `wake` has become readable or was hung up; what has faulted so far
    /// stays for the next call. Sleeps in poll(2) without any timer of its own.
    public func wait(timeoutMilliseconds: Int32, wake: [Int32] = []) throws(KernelError) -> FaultBatch? {
        let end = timeoutMilliseconds < 0 ? nil : monotonicNow() + Int64(timeoutMilliseconds) * 1_000_000
        var polled = rings.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
        polled += wake.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        while true {
            drain()
            if pending.count >= minimumPages || lost { return take() }
            if polled[rings.count...].contains(where: { $0.revents != 0 }) { return nil }
            var limit: Int32 = -1
            if let end {
                let left = end - monotonicNow()
                if left <= 0 { return nil }
                limit = Int32(clamping: (left + 999_999) / 1_000_000)
            }
            if poll(&polled, UInt(polled.count), limit) == -1 {
                guard errno == EINTR else { throw KernelError("waiting for page faults of pid \(pid)", Errno(errno)) }
            } else if polled[..<rings.count].contains(where: { $0.revents & Int16(POLLHUP | POLLERR | POLLNVAL) != 0 })
            {
                throw KernelError("waiting for page faults of pid \(pid): the events have ended", .noProcess)
            }
        }
    }

    /// What has faulted since the last batch, however little; does not wait.
    public func take() -> FaultBatch {
        drain()
        defer {
            pending.removeAll(keepingCapacity: pending.count < 1 << 16)
            (since, lost) = (nil, false)
        }
        let pages = AddressRanges(pending.map { $0..<$0 + pageSize })
        return FaultBatch(pages: pending.count, addresses: pages, since: since, lost: lost)
    }

    /// Ends it; nothing stays behind in the kernel. Further calls find no events.
    public func stop() { rings.removeAll() }

    private func drain() {
        for ring in rings {
            let dropped = ring.drain { sample in
                // Faults of the kernel at its own addresses, and of the container's other processes.
                guard sample.pid == pid, sample.address >> 63 == 0 else { return }
                pending.insert(sample.address & ~(pageSize - 1))
                since = since.map { min($0, sample.time) } ?? sample.time
            }
            if dropped { lost = true }
        }
    }
}

// Which pages of a process changed since the last pass: asynchronous write-protection, scans, and the events of its
// mappings. The last pass, over a stopped process, is exact.
import CLinux
import Glibc
import LinuxKernel
import Synchronization

/// What kind of content an area has, as far as tracking cares.
public enum TrackedKind: Sendable, Hashable {
    /// Private anonymous memory: a page that is absent is zero.
    case anonymous
    /// Private file mapping: a page that is absent, or still the file's, is the file's.
    case privateFile
    /// Shared anonymous memory: what is absent from the page table may still be in the object.
    case sharedAnonymous
}

/// An area whose pages are carried.
public struct TrackedArea: Sendable, Hashable {
    public var range: AddressRange
    public var kind: TrackedKind
    /// Of shared anonymous memory: where in its object the area begins.
    public var offset: UInt64
    /// The area with the free space on both sides, up to the next mappings of whatever kind; below the first mapping and
    /// above the last there is none. The area itself if nothing is known.
    public var surroundings: AddressRange
    public init(_ range: AddressRange, _ kind: TrackedKind, offset: UInt64 = 0, surroundings: AddressRange? = nil) {
        (self.range, self.kind, self.offset) = (range, kind, offset)
        self.surroundings = surroundings ?? range
    }
}

/// What a pass found.
public struct DirtyPass: Sendable {
    /// Pages that have no content of their own (any more): to be dropped at the destination, before `pages` are
    /// applied.
    public var discards = AddressRanges()
    /// Pages whose content has to be sent.
    public var pages = AddressRanges()
    public init() {}
}

/// Tracks one process's changes of memory.
///
/// Why written-only scans are exact: a page that was protected and not touched since is the only thing they leave out.
/// What they cannot see is added from events: pages that mremap carried to another place with their protection, and
/// whole page tables that vanished (those ranges are looked at again, until the process has been seen without them).
///
/// Protecting a page takes a page table, so memory that nobody has touched stays unprotected, by whole page tables: a
/// terabyte that is only reserved would cost 2 GiB of them. Every pass looks there for pages instead, which costs
/// nothing where there is no table.
public final class DirtyTracker {
    private let pid: Int32
    private let userfaultfd: Userfaultfd
    private let pagemap: Pagemap
    private let stoppedScan: StoppedScan
    private let events: MappingEvents
    private var everPassed = false
    /// Registered in the last pass while the layout changed.
    private var unsettled = AddressRanges()
    private var suspects = Suspects()
    /// What the last pass protected, or found protected. Everything else is looked up by presence.
    private var protected = AddressRanges()
    /// What was not protected because nothing is there, and nothing is at the destination.
    private var empty = AddressRanges()

    /// Starts to track with a userfaultfd made in the process.
    public init(pid: Int32, userfaultfd: Userfaultfd) throws(KernelError) {
        self.pid = pid
        self.userfaultfd = userfaultfd
        pagemap = try Pagemap(pid: pid)
        stoppedScan = try StoppedScan(pid: pid)
        events = try MappingEvents(userfaultfd)
    }

    /// Ends tracking: the thread that reads events stops and the descriptor closes.
    ///
    /// Closing costs milliseconds under the target's mmap lock: never in the freeze.
    public func stop() { events.stop() }

    /// Number of children that were born while tracking.
    public var forks: Int { events.forks }

    /// Finds what changed since the last pass and protects it again; nothing is protected with `stopped`.
    ///
    /// - Parameters:
    ///   - readAreas: reads what the process has mapped now. Areas that are new to the tracker are registered (unless
    ///     the process is stopped) and count as changed as a whole.
    ///   - between: called after each gigabyte that was protected; what it throws ends the pass.
    public func pass(
        stopped: Bool, areas readAreas: () throws -> [TrackedArea], between: () throws -> Void = {}
    ) throws -> (DirtyPass, areas: [TrackedArea]) {
        // Events first: what they tell of is in the maps that are read after them.
        let changes = events.take()
        let areas = try readAreas()
        var latest = areas
        let all = AddressRanges(areas.map(\.range))
        let fresh = everPassed ? try unregistered(in: all) : all
        everPassed = true
        // What was mapped anew while its place was being registered is tracked already, but not what `areas` says:
        // the next pass, which sees what it is, counts it as changed once more.
        var changed = fresh.union(unsettled)
        unsettled = AddressRanges()
        if !stopped, !fresh.isEmpty {
            try register(fresh, in: areas)
            let now = try readAreas()
            if now != areas {
                unsettled = fresh
                latest = now
            }
        }
        var moved: [AddressRange] = [], removed: [AddressRange] = []
        for change in changes {
            switch change {
            case .removed(let range): removed.append(range)
            // Both ends, and what may be mapped again where something went: page tables that left as a whole are not
            // reported as written.
            case .remapped(let from, let to, let length): moved += [from..<from + length, to..<to + length]
            case .unmapped(let range): moved.append(range)
            case .forked: break
            }
        }
        suspects.add(AddressRanges(removed))
        suspects.clip(to: all)
        changed = changed.union(AddressRanges(moved)).intersection(all)

        // Everything in a changed range, and wherever nothing is protected, is looked up by presence; elsewhere only
        // what was written.
        protected = protected.intersection(all).subtracting(changed)
        let unprotected = all.subtracting(protected)
        empty = empty.intersection(unprotected).subtracting(changed)
        if stopped {
            changed = unprotected.union(AddressRanges(try stoppedScan.writtenPages(in: protected)))
        } else {
            changed = try protectAgain(unprotected, in: areas, between)
        }

        // A page that was written may have been dropped since; reading it would fault a zero page into the process.
        let look = changed.union(suspects.all)
        let present = try pagemap.contents(of: look, in: areas, vanished: unsettle)
        let absent = look.subtracting(present)
        suspects.settle(absent: absent)
        var result = DirtyPass()
        result.discards = absent.subtracting(empty)
        let shared = AddressRanges(areas.filter { $0.kind == .sharedAnonymous }.map(\.range))
        result.pages = present.intersection(stopped ? changed.union(suspects.all.intersection(shared)) : changed)
        empty = (stopped ? empty : all.subtracting(protected)).subtracting(present)
        // The caller's layout is the latest: nothing outside of it is sent.
        let mapped = AddressRanges(latest.map(\.range))
        result.discards = result.discards.intersection(mapped)
        result.pages = result.pages.intersection(mapped)
        // What it leaves out is looked at as a whole when it shows it again.
        protected = protected.intersection(mapped)
        empty = empty.intersection(mapped)
        return (result, latest)
    }

    /// Lends a hand to a pass over the stopped process that another thread is at; returns when nothing is left to take.
    public func help() { stoppedScan.help() }

    /// Pages of some ranges that have content of their own now, to be sent besides what passes find: from here on they
    /// count as being at the destination.
    public func contents(of ranges: AddressRanges, in areas: [TrackedArea]) throws(KernelError) -> AddressRanges {
        let found = try pagemap.contents(of: ranges, in: areas)
        // A page may have come since the last pass, and go before the next: it has to be dropped there, too.
        empty = empty.subtracting(found)
        return found
    }

    /// Protects what was written, and where nothing was protected before wherever there is a page table.
    ///
    /// - Returns: what was written, and everything that was not protected before, except where the last pass found nothing
    ///   and there still is no page table.
    private func protectAgain(_ unprotected: AddressRanges, in areas: [TrackedArea], _ between: () throws -> Void)
        throws
        -> AddressRanges
    {
        // Where something was dropped its page table may have gone: it is not made again.
        let zapped = protected.intersection(suspects.all.wholeTables)
        let populated = try pagemap.populated(in: unprotected.union(zapped), of: areas, vanished: unsettle)
        let kept = protected.subtracting(zapped.subtracting(populated))
        // What shares a page table with protected memory costs nothing more.
        let fresh = unprotected.intersection(populated.union(kept.touchedTables))
        let written = try writtenAndProtected(in: kept, between)
        _ = try writtenAndProtected(in: fresh, between)
        protected = kept.union(fresh)
        return AddressRanges(written).union(fresh).union(unprotected.subtracting(empty))
    }

    /// What could not be looked at because the process changed its mapping: the next pass counts it as changed.
    private func unsettle(_ area: AddressRange) { unsettled = unsettled.union(AddressRanges([area])) }

    private func writtenAndProtected(in ranges: AddressRanges, _ between: () throws -> Void) throws -> [AddressRange] {
        var written: [AddressRange] = [], bytes = 0
        for range in ranges.ranges {
            for start in stride(from: range.lowerBound, to: range.upperBound, by: Self.longestScan) {
                let piece = start..<min(start + UInt64(Self.longestScan), range.upperBound)
                written += try writtenAndProtected(in: piece)
                bytes += piece.count
                if bytes >= Self.longestScan {
                    try between()
                    bytes = 0
                }
            }
        }
        return written
    }
    private static let longestScan = 1 << 30

    /// Pages written since they were protected last, protected again. Where the mapping is not tracked (any more): the
    /// whole range.
    private func writtenAndProtected(in range: AddressRange) throws(KernelError) -> [AddressRange] {
        var query = Pagemap.Query()
        query.all = .written
        query.returned = .written
        query.protect = true
        var written: [AddressRange] = []
        do throws(KernelError) {
            try pagemap.scan(range, query) { found, _ in written.append(found) }
            return written
        } catch {
            guard error.errno == .notPermitted else { throw error }
            return [range]
        }
    }

    /// Parts of `all` that no userfaultfd tracks (any more).
    private func unregistered(in all: AddressRanges) throws(KernelError) -> AddressRanges {
        guard let first = all.ranges.first, let last = all.ranges.last else { return all }
        var query = Pagemap.Query()
        query.inverted = .writeProtectAllowed
        query.all = .writeProtectAllowed
        query.returned = .writeProtectAllowed
        var found: [AddressRange] = []
        try pagemap.scan(first.lowerBound..<last.upperBound, query) { range, _ in found.append(range) }
        return AddressRanges(found).intersection(all)
    }

    /// Registers ranges; what the running process unmapped in the meantime stays out until the next pass.
    ///
    /// A mapping that has changed in the meantime would fall into two, one tracked and one not, which mremap(2) then
    /// refuses to the program. So areas with nothing else between them are registered in one step, with the free space
    /// between and around them.
    private func register(_ ranges: AddressRanges, in areas: [TrackedArea]) throws(KernelError) {
        var first = 0
        while first < areas.count {
            var last = first
            while last + 1 < areas.count, areas[last].surroundings.upperBound == areas[last + 1].range.lowerBound {
                last += 1
            }
            let stretch = areas[first].surroundings.lowerBound..<areas[last].surroundings.upperBound
            if !ranges.parts(in: stretch).isEmpty, try !register(stretch) {
                for area in areas[first...last] {
                    for range in ranges.parts(in: area.range) { _ = try register(range) }
                }
            }
            first = last + 1
        }
    }

    /// False if the mapping has changed since it was looked at.
    private func register(_ range: AddressRange) throws(KernelError) -> Bool {
        do throws(KernelError) {
            try userfaultfd.register(range)
            return true
        } catch {
            guard [EINVAL, ENOMEM, ENOENT, EAGAIN, EPERM].contains(error.errno.rawValue) else { throw error }
            return false
        }
    }
}

/// Ranges that a zap announced. The event comes *before* the pages go, and a page table that vanishes as a whole is not
/// reported as written: so these are looked at again until they have been seen empty well after their event.
private struct Suspects {
    private var young = AddressRanges()
    private var old = AddressRanges()
    private var turned = monotonicNow()

    var all: AddressRanges { young.union(old) }

    mutating func add(_ ranges: AddressRanges) { young = young.union(ranges) }

    mutating func clip(to all: AddressRanges) {
        young = young.intersection(all)
        old = old.intersection(all)
    }

    mutating func settle(absent: AddressRanges) {
        old = old.subtracting(absent)
        let now = monotonicNow()
        if now - turned > 1_000_000_000 {
            (old, young, turned) = (old.union(young), AddressRanges(), now)
        }
    }
}

/// The thread that reads a userfaultfd's events, always: the program waits until it has.
private final class MappingEvents: Sendable {
    private struct State {
        var events: [MappingEvent] = []
        var forks = 0
    }
    private let state = Mutex(State())
    private let userfaultfd: Userfaultfd
    private let wake: FileDescriptor
    private let finished = Mutex(false)

    init(_ userfaultfd: Userfaultfd) throws(KernelError) {
        self.userfaultfd = userfaultfd
        wake = FileDescriptor(owning: clx_eventfd())
        try OwnThread.start("apus-events") { [self] in run() }
    }

    var forks: Int { state.withLock { $0.forks } }

    /// Events since the last call. With the process stopped this is all of them: whoever caused one waits for it to
    /// be read, and reading happens under the lock taken here.
    func take() -> [MappingEvent] {
        state.withLock { state in
            read(into: &state)
            defer { state.events.removeAll() }
            return state.events
        }
    }

    func stop() {
        var one: UInt64 = 1
        _ = write(wake.number, &one, 8)
        while !finished.withLock({ $0 }) { usleep(100) }
    }

    private func run() {
        while true {
            var polled = [
                pollfd(fd: userfaultfd.descriptor.number, events: Int16(POLLIN), revents: 0),
                pollfd(fd: wake.number, events: Int16(POLLIN), revents: 0),
            ]
            poll(&polled, 2, -1)
            if polled[1].revents != 0 { break }
            state.withLock { read(into: &$0) }
        }
        finished.withLock { $0 = true }
    }

    /// Reads what there is, and no more than threads can wait at the same time: those of a busy program cause new events
    /// as fast as they are read.
    private func read(into state: inout State) {
        var count = 0
        while count < Self.mostWaiting, case let events? = (try? userfaultfd.readEvents()), !events.isEmpty {
            count += events.count
            state.forks += events.count { $0 == .forked }
            state.events += events.filter { $0 != .forked }
        }
    }
    /// The kernel's limit of threads (PID_MAX_LIMIT).
    private static let mostWaiting = 1 << 22
}

// MiGrror: every change of the memory is mirrored to the destination as it happens, until the handover.
import LinuxKernel
import Memory

/// Where the page faults of a container's process are to be heard.
struct PageFaultTarget {
    let pid: Int32
    let cgroupFolders: [String]
    let host: String
    /// Descriptors that end a wait for faults when they can be read.
    let wake: [Int32]
}

final class Mirroring: CopyStrategy {
    private let copier: Copier, plan: MigrationPlan, trigger: HandoverTrigger, place: PageFaultTarget
    private var clock = PassClock()
    /// How events are noticed: "scan" or "faults".
    private(set) var events: String?

    /// Syncs in a row, none of them shorter, until a handover when ready takes place all the same.
    private static let mostInVain = 8
    /// Milliseconds for which a sync waits at most so that tracking costs the program no more than its share.
    private static let shortSpacing = 50.0

    init(_ copier: Copier, _ plan: MigrationPlan, _ trigger: HandoverTrigger, _ place: PageFaultTarget) {
        (self.copier, self.plan, self.trigger, self.place) = (copier, plan, trigger, place)
    }

    func run() throws {
        try copier.arm()
        let faults = try faultEvents()
        defer { faults?.stop() }
        events = faults == nil ? "scan" : "faults"
        try copier.pass()
        var spacing = plan.minSpacing ?? 1
        var last = AddressRanges(), leastScan = copier.lastScan, shortest = Double.infinity, inVain = 0
        while true {
            let began = clock.begin()
            try copier.scan()
            let found = copier.pending
            leastScan = min(leastScan, copier.lastScan)
            copier.noteReadiness()
            inVain = copier.residue < 0.97 * shortest ? 0 : inVain + 1
            shortest = min(shortest, copier.residue)
            // When syncs get no shorter, the mirror gets no closer: with λ near 1 or above there is nothing to wait
            // for.
            if !trigger.isAwaited, copier.isReady || inVain >= Self.mostInVain { return }
            if found.pages >= leastPages {
                try copier.sendPending(began: began)
            } else {
                copier.noteInSync(at: began)
            }
            if plan.minSpacing == nil, copier.readyAt != nil {
                spacing = Self.adaptedSpacing(
                    pages: found.pages, again: found.intersection(last).pages, scan: copier.lastScan,
                    leastScan: leastScan)
            }
            clock.interval = spacing
            last = found
            if trigger.endsCopying { return }
            try awaitSpacing(spacing)
            if let faults { try awaitEvent(faults) }
            while copier.isBehind {
                if trigger.endsCopying { return }
                try copier.awaitAnswer()
            }
        }
    }

    /// Dirty pages that make an event.
    private var leastPages: UInt64 { UInt64(plan.eventPages ?? 1) }

    // ---- When the next sync begins -------------------------------------------------------------------------

    /// Page faults as the plan wants them, or nil to scan on the clock.
    private func faultEvents() throws -> FaultEvents? {
        if plan.events == .scan { return nil }
        if let why = FaultEvents.availability(cgroupFolders: place.cgroupFolders) {
            if plan.events == .auto { return nil }
            throw MigrationError.refused([
                "page-fault events are not to be had on \(place.host) (\(why)); choose --events scan or auto"
            ])
        }
        let pages = plan.eventPages ?? (plan.events == .auto ? MigrationPlan.usualEventPages : 1)
        return try FaultEvents(pid: place.pid, cgroupFolders: place.cgroupFolders, minimumPages: pages)
    }

    private func awaitSpacing(_ milliseconds: Double) throws {
        while !clock.isDue {
            try copier.idle(Int32(min(milliseconds * 1000, 500)))
            if trigger.endsCopying { return }
        }
    }

    /// Sleeps until enough pages have faulted; with `auto` a scan looks now and then at what is fewer, or what no fault
    /// tells of, otherwise no clock runs.
    private func awaitEvent(_ faults: FaultEvents) throws {
        let end = plan.events == .auto ? monotonicNow() + 100_000_000 : nil
        while true {
            // A destination that is silent wakes nobody, and who looks too seldom does not notice.
            let left = end.map { max(0, Int32(($0 - monotonicNow()) / 1_000_000)) } ?? 250
            if try faults.wait(timeoutMilliseconds: left, wake: place.wake) != nil || left == 0 { return }
            try copier.check()
            try copier.takeAnswers()
            if trigger.isGiven { return }
        }
    }

    /// Tracking costs the program a fault for each page at its first write after a sync, some 3 µs, and the scan holds
    /// its page table: together at most a twentieth of the time, as far as waiting helps. Up to 50 ms it is waited for
    /// that; beyond, only the pages count that were in the last sync too, since a page that is written once costs the
    /// same whenever the sync comes, while the mirror gets older.
    ///
    /// - Parameters:
    ///   - again: how many of the pages were in the last sync too.
    ///   - scan: milliseconds of this scan; `leastScan`: what a scan takes that finds little.
    static func adaptedSpacing(pages: UInt64, again: UInt64, scan: Double, leastScan: Double) -> Double {
        let ofPages = Double(pages) * 0.003 + scan - leastScan
        let share = pages == 0 ? 0 : Double(again) / Double(pages)
        return max(1, min((ofPages + leastScan) * 20, shortSpacing), min((ofPages * share + leastScan) * 20, 500))
    }

    // ---- Towards the handover ------------------------------------------------------------------------------

    /// Several syncs may be under way, as long as link and destination keep up.
    func keepUp() throws -> Bool {
        guard clock.isDue, !copier.isBehind else { return false }
        let began = clock.begin()
        try copier.scan()
        if copier.pending.pages >= leastPages { try copier.sendPending(began: began) }
        return true
    }

    func runUp() throws -> Double { try runUp(plan, copier) }
}

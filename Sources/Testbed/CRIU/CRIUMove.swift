// The steps of one migration by CRIU, and how they are taken back.
import Containers
import FoundationEssentials
import Glibc
import LinuxKernel
import Memory
import Migration
import Synchronization

/// A migration by CRIU: `stage`, `copyAhead`, then `handOver`. Calls block.
final class CRIUMove {
    private let record: ContainerRecord
    private let pid: Int32
    private let from, to: CRIUHost
    private let plan: MigrationPlan
    let decidedAt = monotonicNow()
    private let cancelled = Atomic(false)
    /// The dump that comes next, from 0: each adds to the one before.
    private var round = 0
    /// Of those that were made ahead.
    private var passes: [PassReport] = []
    /// Milliseconds after the decision when a last dump would have been a short one, by the plan.
    private var readyAt: Double?
    private var startedAt = ""
    /// What takes back what was done, the last step first.
    private var undo: [(what: String, step: () throws -> Void)] = []
    private var staged: Staged?

    /// What the destination is ready with.
    private struct Staged {
        var transfer: Transfer
        var tree: (sender: FileTreeSender, receiver: FileTreeReceiver)
        /// Files that the container maps shared.
        var suspects: Set<UInt64>
        var network: Network?
        var at: Int64
    }
    private struct Network: Sendable {
        var attachment: NetworkAttachment
        var leaving: SourceHandover
        var accepting: DestinationHandover
    }

    init(
        _ record: ContainerRecord, pid: Int32, from: CRIUHost, to: CRIUHost,
        _ plan: MigrationPlan = MigrationPlan(technique: .cold)
    ) {
        (self.record, self.pid, self.from, self.to, self.plan) = (record, pid, from, to, plan)
    }

    /// Ends a copy that is made ahead; from any thread.
    func cancel() { cancelled.store(true, ordering: .releasing) }

    // MARK: - Before the freeze

    /// Makes the destination ready while the container runs, as Apus does: its folder, its network with the port
    /// plugged and muted, its root file system.
    func stage() throws {
        startedAt = Date().formatted(.iso8601)
        do {
            guard !to.container.exists else {
                throw TestbedError("\(to.host.name) has a container \(record.name) already")
            }
            for host in [from, to] {
                undo.append(("the images", host.cleanUp))
                try host.prepare()
            }
            try to.container.create()
            undo.append(("the destination's folder", to.container.remove))
            let network = try stageNetwork()
            let config = try from.container.config()
            try to.container.write(
                config: config,
                prepared: try config.preparedForRun(
                    .init(
                        root: to.container.rootfs, networkNamespace: network?.attachment.namespace,
                        cgroup: to.layout.cgroup(of: record.name), bundle: record.bundle)))
            let transfer = try Transfer(from: from.host, to: to.host)
            let tree = try stageFiles(config, transfer)
            staged = Staged(
                transfer: transfer, tree: tree, suspects: try SharedMappings.inodes(of: pid), network: network,
                at: monotonicNow())
        } catch { throw undoing(error) }
    }

    private func stageNetwork() throws -> Network? {
        guard let spec = record.network, var attachment = record.attachment else { return nil }
        attachment.backhaul = from.host.backhaulPort(to: to.host)
        let folder = to.layout.runFolder + "/netns"
        try Folder.create(folder)
        let there = NetworkAttachment(
            container: record.name, bridge: to.host.bridge, backhaul: to.host.backhaulPort(to: from.host),
            folder: folder)
        let (leaving, neighbours) = try from.host.namespace.run {
            (try SourceHandover(spec, attachment), try ContainerNetwork.neighbours(spec, attachment))
        }
        let accepting = try to.host.namespace.run {
            try DestinationHandover.prepare(DestinationHandoverRecord(spec, there), neighbours: neighbours)
        }
        undo.append(("the destination's network", { [to] in try to.host.namespace.run { try accepting.abort() } }))
        return Network(attachment: there, leaving: leaving, accepting: accepting)
    }

    /// The root file system as it is now. CRIU carries tmpfs mounts by itself.
    private func stageFiles(
        _ config: ContainerConfig, _ transfer: Transfer
    ) throws -> (FileTreeSender, FileTreeReceiver) {
        let root = config.trees[0]
        let sender = try root.sender(
            rootfs: from.container.rootfs, pid: pid, cache: DigestCache(file: from.layout.digestCacheFile))
        let receiver = try root.receiver(
            rootfs: to.container.rootfs, pid: 0,
            store: ContentStore(
                folder: to.layout.cacheFolder, digests: DigestCache(file: to.layout.digestCacheFile)))
        try transfer.exchange({ try sender.sendAll(over: $0) }, { try receiver.receiveAll(over: $0) })
        return (sender, receiver)
    }

    // MARK: - Dumps ahead

    /// Copies memory while the container runs, by the plan's technique, until it is ready, or until the trigger.
    ///
    /// - Parameter trigger: CLOCK_MONOTONIC nanoseconds; nil: as soon as it is ready.
    func copyAhead(trigger: Int64?) throws {
        do {
            switch plan.technique.copy {
            case .none: try wait(until: trigger)
            case .rounds: try copyInRounds(trigger)
            case .mirroring: try mirror(trigger)
            }
        } catch { throw undoing(error) }
    }

    private func wait(until instant: Int64?) throws {
        while let instant, monotonicNow() < instant {
            try checkCancelled()
            usleep(500)
        }
    }

    private func checkCancelled() throws {
        if cancelled.load(ordering: .acquiring) { throw CancellationError() }
    }

    /// Pre-copy: a pre-dump is a round. The plan's rules end them; then they go on at its interval until the trigger.
    private func copyInRounds(_ trigger: Int64?) throws {
        func isTriggered() -> Bool { trigger.map { monotonicNow() >= $0 } ?? false }
        var before = UInt64.max
        for round in 1...max(1, plan.maxRounds) {
            let begun = monotonicNow()
            let pages = try preDump()
            if isTriggered() { return }
            if readyAt != nil || plan.stopPages.map({ pages <= UInt64($0) }) ?? false { break }
            if let growth = plan.stopGrowth, before != .max, Double(pages) > Double(before) * (1 + growth / 100) {
                break
            }
            before = pages
            if round < plan.maxRounds { try wait(until: plan.roundInterval.map { begun + Int64($0 * 1e6) }) }
        }
        while let trigger, monotonicNow() < trigger {
            guard let interval = plan.waitInterval else { return try wait(until: trigger) }
            try wait(until: min(trigger, monotonicNow() + Int64(interval * 1e6)))
            if !isTriggered() { _ = try preDump() }
        }
    }

    /// MiGrror, as far as CRIU can: a pre-dump at each event, of which one at most is under way. A pre-dump clears the
    /// soft-dirty bits, so the kernel's page-fault events tell of changes. This is our reading of the published idea
    /// with CRIU's means; nobody has published how to do it.
    private func mirror(_ trigger: Int64?) throws {
        let folders = try CgroupPlace(pid: pid, cgroup: from.layout.cgroup(of: record.name)).folders
        let faults = try FaultEvents(pid: pid, cgroupFolders: folders, minimumPages: plan.eventPages ?? 1)
        defer { faults.stop() }
        var (shortest, inVain) = (UInt64.max, 0)
        _ = try preDump()
        while true {
            if let trigger, monotonicNow() >= trigger { return }
            // Syncs that get no smaller bring the mirror no closer.
            if trigger == nil, readyAt != nil || inVain >= 8 { return }
            try checkCancelled()
            guard try faults.wait(timeoutMilliseconds: 50) != nil else {
                // Nothing is written: the mirror is as good as it gets.
                readyAt = readyAt ?? Double(monotonicNow() - decidedAt) / 1e6
                continue
            }
            let pages = try preDump()
            inVain = pages < shortest ? 0 : inVain + 1
            shortest = min(shortest, pages)
        }
    }

    /// One dump of what was written since the last one, and its way to the other host.
    ///
    /// - Returns: pages of 4 KiB in it.
    private func preDump() throws -> UInt64 {
        guard let staged else { throw TestbedError("not staged") }
        try checkCancelled()
        let begun = monotonicNow(), sentBefore = staged.transfer.bytes
        try from.preDump(try CRIUOutput(of: pid, log: from.container.log), round: round)
        let dumped = monotonicNow()
        let images = try send(round: round, staged, besides: [])
        let ended = monotonicNow(), pages = images.pages / 4096
        passes.append(
            PassReport(
                start: Double(begun - decidedAt) / 1e6, duration: Double(ended - begun) / 1e6, pages: pages,
                bytes: staged.transfer.bytes - sentBefore))
        // What was written while this one was made and sent is left for the next one: about as much again.
        if Double(ended - dumped) / 1e6 <= plan.readyWithin {
            readyAt = readyAt ?? Double(ended - decidedAt) / 1e6
        }
        round += 1
        return pages
    }

    /// Sends a round's images, and other files under names of their own.
    private func send(round: Int, _ staged: Staged, besides others: [(name: String, path: String, to: String)]) throws
        -> Images
    {
        let (folder, target) = (from.images(round), to.images(round))
        // CRIU's link to the round before is made there, not sent.
        let names = try Folder.names(folder).filter { $0 != "parent" }.sorted()
        try to.makeRoom(forRound: round)
        let files = names.map { (name: $0, path: "\(folder)/\($0)") }
        let places = Dictionary(uniqueKeysWithValues: others.map { ($0.name, $0.to) })
        try staged.transfer.exchange(
            { try Transfer.send(files + others.map { ($0.name, $0.path) }, over: $0) },
            { try Transfer.receive(from: $0) { places[$0] ?? "\(target)/\($0)" } })
        return try Images(files.map(\.path))
    }

    // MARK: - Checkpoint, copy, restore

    /// Stops the container, carries it over and lets it run at the destination.
    ///
    /// - Parameter waited: it was put off to an instant that others chose.
    func handOver(waited: Bool) throws -> MigrationReport {
        guard let staged else { throw TestbedError("not staged") }
        var times = Times(decided: decidedAt, staged: staged.at)
        do {
            let offset = try Clocks.offsets(of: pid).monotonic
            let output = try CRIUOutput(of: pid, log: from.container.log)
            times.triggered = monotonicNow()
            times.frozen = try checkpoint(output, staged.network)
            times.checkpointed = monotonicNow()
            let images = try copy(staged)
            times.copied = monotonicNow()
            undo.append(("the destination's copy", to.end))
            try to.restore(output, round: round)
            // From here on there is one copy, here; nothing is taken back.
            undo = []
            do { try staged.network?.accepting.open() } catch {
                try? settle(staged.network)
                throw error
            }
            times.released = monotonicNow()
            try settle(staged.network)
            var report = times.report(plan, waited: waited)
            report.readyAt = readyAt
            report.passes = passes + report.passes
            (report.container, report.source, report.destination) = (record.name, from.host.name, to.host.name)
            (report.startedAt, report.bytesSent) = (startedAt, staged.transfer.bytes)
            images.add(to: &report)
            report.clockLag = try offset - Clocks.offsets(of: to.pid()).monotonic
            return report
        } catch { throw undoing(error) }
    }

    /// - Returns: when the freeze began.
    private func checkpoint(_ output: CRIUOutput?, _ network: Network?) throws -> Int64 {
        let leave: @Sendable () throws -> Void = {
            // What comes for the container waits at the destination from here on; this side's port falls silent.
            try network?.accepting.accept()
            try network?.leaving.redirect()
            try network?.leaving.silence()
        }
        if let network { undo.append(("the source's network", network.leaving.rollback)) }
        let begun = monotonicNow()
        let watch = try FreezeWatch(pid: pid, cgroup: from.layout.cgroup(of: record.name), leave)
        let result = Result { try from.makeCheckpoint(output, round: round) }
        let noticed = Result { try watch.end() }
        try result.get()
        // Its processes are gone, the images are all there is.
        undo.append(("the source's copy, restored", { [from, round] in try from.restore(output, round: round) }))
        let instant = try noticed.get()
        // Again, in case that the watch missed it.
        try leave()
        return instant ?? begun
    }

    /// Sends the images, what the container has said, and what changed in its root file system.
    private func copy(_ staged: Staged) throws -> Images {
        let images = try send(
            round: round, staged, besides: [(name: "../log", path: from.container.log, to: to.container.log)])
        if let changes = try staged.tree.sender.changes(suspects: staged.suspects, isStill: true) {
            let receiver = staged.tree.receiver
            try staged.transfer.exchange({ try changes.write(to: $0) }, { try receiver.apply(from: $0) })
        }
        return images
    }

    /// The destination's agent has the container now; what is left of it at the source goes.
    private func settle(_ network: Network?) throws {
        var record = record
        (record.since, record.origin) = (Date().formatted(.iso8601), from.host.name)
        record.attachment = network?.attachment
        try to.container.write(record: record)
        if let network {
            try from.host.namespace.run { try network.leaving.retire() }
            try to.host.namespace.run { try network.accepting.finish() }
        }
        try from.container.remove()
        for host in [from, to] { try host.cleanUp() }
    }

    /// Takes back what was done.
    ///
    /// - Returns: the error, with what could not be taken back.
    func undoing(_ error: any Error) -> any Error {
        var failures: [String] = []
        for (what, step) in undo.reversed() {
            do { try step() } catch { failures.append("\(what): \(error)") }
        }
        undo = []
        if failures.isEmpty { return error }
        return TestbedError("\(error); what could not be taken back: \(failures.joined(separator: "; "))")
    }

    // MARK: - Figures

    /// The images' sizes, bytes.
    private struct Images {
        var all: UInt64 = 0
        var pages: UInt64 = 0

        init(_ paths: [String]) throws {
            for path in paths {
                var status = stat()
                try checkC(stat(path, &status), "looking at \(path)")
                all += UInt64(status.st_size)
                if path.split(separator: "/").last!.hasPrefix("pages-") { pages += UInt64(status.st_size) }
            }
        }

        func add(to report: inout MigrationReport) {
            let last = report.passes.count - 1
            (report.passes[last].pages, report.passes[last].bytes) = (pages / 4096, all)
            report.pagesSent = report.passes.reduce(0) { $0 + $1.pages }
            // All of it travels in the first dump.
            report.stateBytes = report.passes[0].bytes
        }
    }

    /// CLOCK_MONOTONIC nanoseconds.
    private struct Times {
        var decided, staged: Int64
        var triggered, frozen, checkpointed, copied, released: Int64

        init(decided: Int64, staged: Int64) {
            (self.decided, self.staged) = (decided, staged)
            (triggered, frozen, checkpointed, copied, released) = (0, 0, 0, 0, 0)
        }

        func report(_ plan: MigrationPlan, waited: Bool) -> MigrationReport {
            func milliseconds(_ start: Int64, _ end: Int64) -> Double { Double(end - start) / 1e6 }
            var report = MigrationReport(plan: plan)
            report.plan.handover = waited ? .atTrigger : .whenReady
            (report.frozenAt, report.releasedAt) = (frozen, released)
            report.engineDowntime = milliseconds(frozen, released)
            report.migrationTime = milliseconds(decided, released)
            report.handoverTime = milliseconds(
                waited || plan.technique.copy != .none ? triggered : staged, released)
            let stretches = [
                ("stage", decided, staged), (plan.technique.copy == .none ? "wait" : "copy ahead", staged, triggered),
                ("checkpoint", triggered, checkpointed),
                ("copy", checkpointed, copied), ("restore", copied, released),
            ]
            report.phases = stretches.filter { $0.0 != "wait" || waited }.map {
                .init(name: $0.0, duration: milliseconds($0.1, $0.2))
            }
            report.passes = [
                PassReport(
                    start: milliseconds(decided, checkpointed), duration: milliseconds(checkpointed, copied), pages: 0,
                    bytes: 0)
            ]
            report.steps = stretches.suffix(3).map { name, start, end in
                StepReport(
                    name: name, side: name == "restore" ? "destination" : "source",
                    start: Double(max(start, frozen) - frozen) / 1000, duration: Double(end - max(start, frozen)) / 1000
                )
            }
            return report
        }
    }
}

// From an image to a process that only has to be let go.
import LinuxKernel

extension StubProcess {
    /// Lays out what can be laid out while the source still runs: the address space and the threads, as they are now.
    ///
    /// - Parameter clocks: what its clocks show besides the kernel's; nil: what this process's do.
    public func stage(_ layout: CheckedLayout, threads tids: [Int32], clocks: Clocks? = nil) throws {
        try prepare(for: layout.areas)
        if let clocks { try setClocks(clocks) }
        try liftDescriptorLimit()
        try change(to: layout)
        try setThreads(tids)
    }

    /// Makes everything of the process but its TCP connections, its memory's last pages and its registers, which may
    /// still be on their way.
    public func restore(_ checked: CheckedImage, _ tools: RestoreTools = RestoreTools()) throws {
        let image = checked.image
        guard let leader = threads[image.pid], let first = image.threads.firstIndex(where: { $0.tid == image.pid })
        else {
            throw EngineError.invalidImage("pid \(image.pid) has no leader here")
        }
        try setThreads(image.threads.map(\.tid))
        // Where both hosts share processors, an ordinary thread waits behind the engines'.
        for tracee in threads.values { ThreadPriority.realTime.apply(to: tracee.tid) }
        // What is the process's own comes first: it needs the privileges that the threads' batches give up.
        let context = RestoreContext(stub: self)
        var shared = try DescriptorTable.make(image, self)
        for resource in processResources { try resource.restore(image, context, &shared) }
        _ = try run(shared)
        try DescriptorTable.fill(image, self, tools)
        let order = [image.threads[first]] + image.threads.filter { $0.tid != image.pid }
        try queue(image.threads.map { ($0.tid, $0.pending) }, of: image.pid)
        _ = try run(order.map { (threads[$0.tid]!, ThreadRestore.batch($0, of: image)) })
        // 2 (only root may dump) is the kernel's to set, by giving up privileges as just done.
        if image.settings.dumpable != 2 {
            var last = CallBatch()
            last.call(.prctl, .value(4), .int(image.settings.dumpable), doing: "setting PR_SET_DUMPABLE")
            _ = try run([(leader, last)])
        }
    }

    /// Files were mapped by their paths while the tree of files still changed: is each the one that is there now?
    public func checkMappedFiles() throws {
        let reader = try AddressSpaceReader(pid: pid)
        try reader.refresh(quick: true)
        if let obstacle = reader.obstacles.first {
            throw EngineError.invalidImage(
                "after the last changes of files, \(obstacle.subject) is a \(obstacle.reason)")
        }
    }

    /// The last of it: the connections, what needs every descriptor in its state, and where each thread goes on. From
    /// here the process only has to be released.
    ///
    /// - Parameter late: signals that came after the image had been captured.
    public func finish(
        _ checked: CheckedImage, _ tools: RestoreTools = RestoreTools(), _ late: LateSignals = LateSignals()
    ) throws {
        let image = checked.image
        try DescriptorTable.connect(image, self, tools)
        var late = late
        let isStopped = late.takeStop(image.signals.stopped)
        try queue(late, image)
        try protectShared()
        _ = try run(ProcessAttributes.limits(image))
        try closeArea()
        for thread in image.threads {
            guard let tracee = threads[thread.tid] else {
                throw EngineError.invalidImage("thread \(thread.tid) was not made")
            }
            try ThreadRestore.finish(thread, tracee)
            try ThreadRestore.schedule(thread, tracee)
        }
        if isStopped { try stopBySignal() }
    }
}

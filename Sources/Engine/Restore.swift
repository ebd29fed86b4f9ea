// From an image to a process that only has to be let go.
import LinuxKernel

extension StubProcess {
    /// Lays out what can be laid out while the source still runs: the address space and the threads, as they are now.
    ///
    /// - Parameters:
    ///   - capabilities: the most that a thread of the container can have, as a mask.
    ///   - clocks: what its clocks show besides the kernel's; nil: what this process's do.
    public func stage(_ layout: CheckedLayout, threads tids: [Int32], capabilities: UInt64, clocks: Clocks? = nil)
        throws
    {
        try prepare(for: layout.areas)
        if let clocks { try setClocks(clocks) }
        try liftDescriptorLimit()
        try change(to: layout)
        try limitBoundingSet(to: capabilities)
        try setThreads(tids)
    }

    /// Makes what the threads of the process share, but its TCP connections and its memory's last pages. Its threads
    /// may still be on their way.
    ///
    /// - Parameter note: told when each part began and ended.
    public func restore(
        _ checked: CheckedTree, _ tools: RestoreTools = RestoreTools(),
        note: PartNote = { _, _, _ in }
    ) throws {
        var clock = PartClock()
        let parts = try checked.onlyProcess(), process = parts.process
        guard threads[process.pid] != nil else {
            throw EngineError.invalidImage("pid \(process.pid) has no leader here")
        }
        // Where both hosts share processors, an ordinary thread waits behind the engines'.
        for tracee in threads.values { ThreadPriority.realTime.apply(to: tracee.tid) }
        // What is the process's own comes first: it needs the privileges that the threads' batches give up.
        let context = RestoreContext(stub: self)
        var shared = try DescriptorTable.make(parts.descriptors, checked, self)
        for resource in processResources where !resource.comeWithThreads {
            try resource.restore(parts, context, &shared)
        }
        clock.note("plan", note)
        _ = try run(shared)
        clock.note("files and process", note)
        try DescriptorTable.fill(parts.descriptors, checked, self, tools)
        clock.note("state of files", note)
    }

    /// Makes its threads what they were, but for their registers, queues the signals that wait, and sets its timers.
    public func restoreThreads(_ checked: CheckedTree, note: PartNote = { _, _, _ in }) throws {
        var clock = PartClock()
        let parts = try checked.onlyProcess(), process = parts.threads, known = Set(threads.keys)
        try setThreads(process.threads.map(\.tid))
        for (tid, tracee) in threads where !known.contains(tid) { ThreadPriority.realTime.apply(to: tracee.tid) }
        let order = process.threads.filter { $0.tid == process.pid } + process.threads.filter { $0.tid != process.pid }
        try queue(
            LateSignals(
                ofProcess: process.pending,
                ofThreads: Dictionary(process.threads.map { ($0.tid, $0.pending) }) { first, _ in first }),
            of: process.pid)
        var shared = CallBatch()
        for resource in processResources where resource.comeWithThreads {
            try resource.restore(parts, RestoreContext(stub: self), &shared)
        }
        if !shared.isEmpty { _ = try run(shared) }
        _ = try run(order.map { (threads[$0.tid]!, ThreadRestore.batch($0, boundingSet: boundingSet)) })
        clock.note("threads", note)
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
    /// - Parameters:
    ///   - late: signals that came after the image had been captured, by the PID of their process.
    ///   - note: told when each part began and ended.
    public func finish(
        _ checked: CheckedTree, _ tools: RestoreTools = RestoreTools(), _ late: [Int32: LateSignals] = [:],
        note: PartNote = { _, _, _ in }
    ) throws {
        var clock = PartClock()
        let parts = try checked.onlyProcess(), process = parts.process
        guard checked.hasThreads else { throw EngineError.invalidImage("a process without its threads") }
        var last = try DescriptorTable.connect(parts.descriptors, checked, self, tools)
        clock.note("connections", note)
        ProcessAttributes.finish(process, &last)
        var signals = late[process.pid] ?? LateSignals()
        let isStopped = signals.takeStop(parts.threads.stopped)
        try queue(signals, of: process.pid)
        try protectShared()
        if !last.isEmpty { _ = try run(last) }
        try closeArea()
        clock.note("last calls", note)
        for thread in parts.threads.threads {
            guard let tracee = threads[thread.tid] else {
                throw EngineError.invalidImage("thread \(thread.tid) was not made")
            }
            try ThreadRestore.finish(thread, tracee)
            try ThreadRestore.schedule(thread, tracee)
        }
        if isStopped { try stopBySignal() }
        clock.note("registers", note)
    }
}

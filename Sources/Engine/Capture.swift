// The whole of a stopped process tree as an image, but its pages.
import Glibc
import LinuxKernel
import Memory

/// A capture of a stopped process tree; keeps copies of its descriptors until it goes.
public struct Capture {
    /// The processes without their threads.
    public private(set) var tree: TreeImage
    /// Their threads, and what acts on them; empty until `SourceProcess.captureThreads`.
    public fileprivate(set) var threads: [ProcessThreads] = []
    /// What the threads have answered already.
    fileprivate var answers: ThreadAnswers?
    /// What is captured last, a kind of open file each.
    private var late: [any LateCapture]
    /// Inodes of the regular files that are open for writing.
    public let writtenFiles: Set<UInt64>

    fileprivate init(
        _ tree: TreeImage, _ answers: ThreadAnswers, late: [any LateCapture], writtenFiles: Set<UInt64>
    ) {
        (self.tree, self.answers, self.late, self.writtenFiles) = (tree, answers, late, writtenFiles)
    }

    /// Frames for the container go elsewhere: begins to capture what the network may change until the end.
    public mutating func beginLate() throws {
        try editLate { capture, files in try capture.begin(&files) }
    }

    /// Nothing reaches the container and nothing leaves it any more: captures the rest of it.
    ///
    /// - Throws: `EngineError.obstacles` if something of it cannot be carried.
    public mutating func settleLate() throws {
        try editLate { capture, files in try capture.settle(&files) }
    }

    private mutating func editLate(_ edit: (inout any LateCapture, inout [OpenFile]) throws -> Void) throws {
        var captures: [any LateCapture] = []
        swap(&captures, &late)
        defer { late = captures }
        try tree.editFiles { files in for index in captures.indices { try edit(&captures[index], &files) } }
    }

    /// What was captured last, to send after the rest of the image, by the file's index there.
    public var lateStates: [UInt32: LateState] {
        late.reduce(into: [:]) { states, capture in states.merge(capture.states(tree.files)) { first, _ in first } }
    }

    /// Frames that were sent before may still be on their way into the container's sockets.
    public var receivesLate: Bool { late.contains(where: \.receivesLate) }

    /// Gives the open files back to the source's program, each whatever becomes of the others.
    ///
    /// - Throws: the first failure; those files stay as they are.
    public mutating func releaseLate() throws {
        var failure: (any Error)?
        for index in late.indices { do { try late[index].release() } catch { failure = failure ?? error } }
        if let failure { throw failure }
    }
}

/// What is known of a process's threads before they are captured.
private struct ThreadAnswers {
    let context: CaptureContext
    let threadCapture: ThreadCapture, credentials: CredentialsCheck
    let expiries: TimerSignals
    /// By thread, the leader first.
    let answers: [CallResults]
    let seccompFilters: Int?
    /// What the process itself has answered of them.
    let process: ProcessThreads
}

extension SourceProcess {
    /// Captures everything but page contents and threads. The process must be stopped.
    ///
    /// - Parameters:
    ///   - threadsAreStill: called when no call is injected any more: a scan of the memory before would take the
    ///     processor from them, and the lock of the address space, which brk takes.
    ///   - note: told when each part began and ended.
    public func capture(
        _ context: DescriptorContext, threadsAreStill: () -> Void = {}, note: PartNote
    ) throws -> Capture {
        var clock = PartClock()
        let status = try ProcessStatus(pid: pid)
        let capture = CaptureContext(process: self, status: status)
        // The same questions for every thread, put together once.
        var questions = CallBatch(), uncarried = UncarriedSettings(), threadCapture = ThreadCapture()
        var credentialsCheck = CredentialsCheck(leader: status)
        threadCapture.ask(&questions)
        uncarried.ask(&questions)
        credentialsCheck.ask(&questions)
        var batches = [CallBatch](repeating: questions, count: threads.count)
        let inner = Int32(status.numbers("NStgid").last ?? 0)
        var expiries = try TimerSignals(of: self, inner: inner)

        var resources = processResources.map { $0.init() as any ProcessResource }
        for index in resources.indices { try resources[index].ask(capture, &batches[0]) }
        try openFiles.look()
        let numbers = openFiles.files.flatMap { $0 }, most = 10_000
        let asked = DescriptorTable.ask(numbers.prefix(most), &batches[0])

        clock.note("ask", note)
        let answers = try run(batches)
        expiries.timersHaveTold()
        var flags: [Int32: Int64] = [:]
        for (number, question) in zip(numbers, asked) { flags[number] = answers[0][question] }
        for start in stride(from: most, to: numbers.count, by: most) {
            var batch = CallBatch()
            let rest = numbers[start..<min(start + most, numbers.count)]
            let asked = DescriptorTable.ask(rest, &batch), answers = try run([batch])[0]
            for (number, question) in zip(rest, asked) { flags[number] = answers[question] }
        }
        clock.note("injected calls", note)
        threadsAreStill()

        var parts = ProcessParts()
        (parts.process.pid, parts.threads.pid) = (inner, inner)
        for resource in resources { try resource.collect(capture, answers[0], into: &parts) }
        try capture.refuse(pid, Uncarried.reasons(status, context.seccompFilters))
        // Before anything is sent: once the destination has made what it was sent, it would have to begin anew.
        for (thread, answers) in zip(threads, answers) {
            let reasons = Uncarried.reasons(thread.registers) + Uncarried.reasons(thread.tracee)
            try capture.refuse(thread.tracee.tid, reasons + uncarried.reasons(answers))
        }
        clock.note("process", note)
        let collected = try DescriptorTable.collect(openFiles, pidfd, flags, context, between: whileWaiting)
        parts.descriptors = collected.descriptors
        clock.note("descriptors", note)
        return Capture(
            TreeImage(parts, files: collected.files),
            ThreadAnswers(
                context: capture, threadCapture: threadCapture, credentials: credentialsCheck, expiries: expiries,
                answers: answers, seccompFilters: context.seccompFilters, process: parts.threads),
            late: collected.late, writtenFiles: collected.written)
    }

    /// Captures the threads, which have told what they alone know, and the signals that wait.
    public func captureThreads(_ capture: inout Capture, note: PartNote) throws {
        guard let known = capture.answers else { return }
        var clock = PartClock(), process = known.process
        let status = known.context.status
        let leader = (fields: CredentialsResource.fields(status), credentials: CredentialsResource.capture(status))
        var captured: [ThreadImage] = []
        captured.reserveCapacity(threads.count)
        for index in threads.indices {
            if index % 64 == 0 { try whileWaiting() }
            let tid = threads[index].tracee.tid
            let answers = known.answers[index], tracee = threads[index].tracee
            var thread = try known.threadCapture.collect(threads[index], innerTID(of: tid), answers)
            var credentials = leader.credentials
            if tid != pid, try !known.credentials.isLikeLeader(answers, tracee, knownThread(tid)) {
                let status = try ProcessStatus(pid: pid, task: tid)
                if CredentialsResource.fields(status) != leader.fields {
                    try known.context.refuse(tid, Uncarried.reasons(status, known.seccompFilters))
                    credentials = CredentialsResource.capture(status)
                }
            }
            let securebits = thread.credentials.securebits
            thread.credentials = credentials
            thread.credentials.securebits = securebits
            captured.append(thread)
        }
        process.threads = captured
        process.pending = try Tracee(tid: pid).pendingSignals(ofProcess: true).map { Bytes($0) }
        try known.expiries.takeBack(in: &process, of: self)
        process.enterStop(isStoppedBySignal)
        (capture.threads, capture.answers) = ([process], nil)
        clock.note("threads", note)
    }
}

/// Told of a part of a longer step: when it began and ended, CLOCK_MONOTONIC nanoseconds.
public typealias PartNote = (_ part: String, _ began: Int64, _ ended: Int64) -> Void

/// Times the parts of a step, one after another.
struct PartClock {
    private var began = monotonicNow()

    /// The part that ends now began where the one before it ended.
    mutating func note(_ name: String, _ note: PartNote) {
        let now = monotonicNow()
        note(name, began, now)
        began = now
    }
}

/// Finds what cannot be carried, without stopping anything.
public func findObstacles(pid: Int32, _ layout: AddressSpaceReader, _ descriptors: DescriptorContext) throws
    -> [Obstacle]
{
    var openFiles = OpenFiles(of: pid)
    return try findObstacles(pid: pid, layout, descriptors, &openFiles)
}

extension SourceProcess {
    /// Finds what cannot be carried, without stopping anything. The capture makes use of what was seen of the
    /// descriptors.
    public func findObstacles(_ layout: AddressSpaceReader, _ descriptors: DescriptorContext) throws -> [Obstacle] {
        try Engine.findObstacles(pid: pid, layout, descriptors, &openFiles)
    }
}

private func findObstacles(
    pid: Int32, _ layout: AddressSpaceReader, _ descriptors: DescriptorContext, _ openFiles: inout OpenFiles
) throws -> [Obstacle] {
    if let ended = ProcessObstacles.endedLeader(pid) { return [ended] }
    let context = try InspectContext(pid: pid)
    // What else would be said of it depends on what another kind of program looks like.
    if let narrow = ProcessObstacles.narrow(context) { return [narrow] }
    var found = layout.obstacles
    for resource in processResources { found += try resource.obstacles(context) }
    found += try Uncarried.memory(context, layout.tracked)
    found += try Uncarried.obstacles(context, seccompFilters: descriptors.seccompFilters)
    found += try DescriptorTable.obstacles(context, descriptors, &openFiles)
    return found
}

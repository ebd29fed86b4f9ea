// The whole of a stopped process as an image, but its pages.
import Glibc
import LinuxKernel
import Memory

/// A capture of a stopped process; keeps copies of its descriptors until it goes.
public struct Capture {
    public internal(set) var image: ProcessImage
    /// What is captured last, a kind of open file each.
    var late: [any LateCapture]
    /// Inodes of the regular files that the process has open for writing.
    public let writtenFiles: Set<UInt64>

    /// Frames for the container go elsewhere: begins to capture what the network may change until the end.
    public mutating func beginLate() throws { for index in late.indices { try late[index].begin(&image) } }

    /// Nothing reaches the container and nothing leaves it any more: captures the rest of it.
    ///
    /// - Throws: `EngineError.obstacles` if something of it cannot be carried.
    public mutating func settleLate() throws { for index in late.indices { try late[index].settle(&image) } }

    /// What was captured last, to send after the rest of the image, by the file's index there.
    public var lateStates: [UInt32: LateState] {
        late.reduce(into: [:]) { states, capture in states.merge(capture.states(image)) { first, _ in first } }
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

extension SourceProcess {
    /// Captures everything but page contents. The process must be stopped.
    ///
    /// `note` is told when each part began and ended. `threadsAreStill` is called when no call is injected any more: a
    /// scan of the memory before would take the processor from them, and the lock of the address space, which brk
    /// takes.
    public func capture(
        _ layout: AddressSpaceReader, _ context: DescriptorContext, threadsAreStill: () -> Void = {},
        note: (_ part: String, Int64, Int64) -> Void
    ) throws -> Capture {
        var begun = monotonicNow()
        func part(_ name: String) {
            let now = monotonicNow()
            note(name, begun, now)
            begun = now
        }
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
        let expiries = try TimerSignals(of: self, inner: inner)

        var resources = processResources.map { $0.init() as any ProcessResource }
        for index in resources.indices { try resources[index].ask(capture, &batches[0]) }
        try openFiles.look()
        let numbers = openFiles.files.flatMap { $0 }, most = 10_000
        let asked = DescriptorTable.ask(numbers.prefix(most), &batches[0])

        part("ask")
        let answers = try run(batches)
        var flags: [Int32: Int64] = [:]
        for (number, question) in zip(numbers, asked) { flags[number] = answers[0][question] }
        for start in stride(from: most, to: numbers.count, by: most) {
            var batch = CallBatch()
            let rest = numbers[start..<min(start + most, numbers.count)]
            let asked = DescriptorTable.ask(rest, &batch), answers = try run([batch])[0]
            for (number, question) in zip(rest, asked) { flags[number] = answers[question] }
        }
        part("injected calls")
        threadsAreStill()

        var image = ProcessImage()
        image.version = ProcessImage.currentVersion
        image.pid = inner
        for resource in resources { try resource.collect(capture, answers[0], into: &image) }
        func refuse(_ tid: Int32, _ reasons: [String]) throws {
            if reasons.isEmpty { return }
            let subject = tid == pid ? "process" : "thread \(tid)"
            throw EngineError.obstacles(reasons.map { capture.obstacle(subject, $0) })
        }
        try refuse(pid, Uncarried.reasons(status, context.seccompFilters))
        let leader = (fields: CredentialsResource.fields(status), credentials: CredentialsResource.capture(status))
        var captured: [ThreadImage] = []
        captured.reserveCapacity(threads.count)
        for index in threads.indices {
            if index % 64 == 0 { try whileWaiting() }
            let tid = threads[index].tracee.tid
            try refuse(tid, Uncarried.reasons(threads[index].registers) + Uncarried.reasons(threads[index].tracee))
            var thread = try threadCapture.collect(threads[index], innerTID(of: tid), answers[index])
            try refuse(tid, uncarried.reasons(answers[index]))
            var credentials = leader.credentials
            if tid != pid, try !credentialsCheck.isLikeLeader(answers[index], threads[index].tracee, knownThread(tid)) {
                let status = try ProcessStatus(pid: pid, task: tid)
                if CredentialsResource.fields(status) != leader.fields {
                    try refuse(tid, Uncarried.reasons(status, context.seccompFilters))
                    credentials = CredentialsResource.capture(status)
                }
            }
            let securebits = thread.credentials.securebits
            thread.credentials = credentials
            thread.credentials.securebits = securebits
            captured.append(thread)
        }
        image.threads = captured
        try expiries.takeBack(in: &image, of: self)
        image.enterStop(isStoppedBySignal)
        part("process and threads")
        let files = try DescriptorTable.collect(self, flags, context, into: &image)
        part("descriptors")
        return Capture(image: image, late: files.late, writtenFiles: files.written)
    }
}

extension ProcessImage {
    /// The format this code writes and reads.
    public static let currentVersion: UInt32 = 1
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

// The whole of a stopped process as an image, but its pages.
import LinuxKernel
import Memory

/// A capture of a stopped process; keeps copies of its descriptors until it goes.
public struct Capture {
    public internal(set) var image: ProcessImage
    /// The process's open files, for what has to be done with them besides (sockets in repair mode).
    let probes: [DescriptorProbe]
    /// Connections under repair, by their index in the image's files.
    var repaired: [Int: Repaired] = [:]

    struct Repaired {
        let copy: FileDescriptor
        let repair: TCPSocket.Repair
    }
}

extension SourceProcess {
    /// Captures everything but page contents. The process must be stopped.
    ///
    /// `note` is told when each part began and ended. `threadsAreStill` is called when no call is injected any more: a
    /// scan of the memory before would take the processor from them, and the lock of the address space, which brk takes.
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
        var batches = [CallBatch](repeating: CallBatch(), count: threads.count)
        var uncarried = [UncarriedSettings](repeating: UncarriedSettings(), count: threads.count)
        var threadCaptures = [ThreadCapture](repeating: ThreadCapture(), count: threads.count)
        let inner = Int32(status.numbers("NStgid").last ?? 0)
        try TimerSignals.settleShared(pid, inner: inner, &batches[0])
        for index in threads.indices {
            let tid = threads[index].tracee.tid
            try TimerSignals.settleOwn(tid, inner: (inner, innerTID(of: tid)), &batches[index])
            threadCaptures[index].ask(&batches[index])
            uncarried[index].ask(&batches[index])
        }

        var resources = processResources.map { $0.init() as any ProcessResource }
        for index in resources.indices { try resources[index].ask(capture, &batches[0]) }
        let numbers = try ProcessFiles.descriptors(of: pid)
        let flags = DescriptorTable.ask(numbers, &batches[0])

        part("ask")
        let answers = try run(batches)
        part("injected calls")
        threadsAreStill()

        var image = ProcessImage()
        image.version = ProcessImage.currentVersion
        image.pid = inner
        for resource in resources { try resource.collect(capture, answers[0], into: &image) }
        image.addressSpace.areas = layout.areas
        func refuse(_ tid: Int32, _ reasons: [String]) throws {
            if reasons.isEmpty { return }
            let subject = tid == pid ? "process" : "thread \(tid)"
            throw EngineError.obstacles(reasons.map { capture.obstacle(subject, $0) })
        }
        try refuse(pid, Uncarried.reasons(status, context.seccompFilters))
        let leader = (fields: CredentialsResource.fields(status), credentials: CredentialsResource.capture(status))
        for index in threads.indices {
            let tid = threads[index].tracee.tid
            var thread = try threadCaptures[index].collect(threads[index], innerTID(of: tid), answers[index])
            try refuse(tid, uncarried[index].reasons(answers[index]))
            var credentials = leader.credentials
            if tid != pid {
                let status = try ProcessStatus(pid: pid, task: tid)
                if CredentialsResource.fields(status) != leader.fields {
                    try refuse(tid, Uncarried.reasons(status, context.seccompFilters))
                    credentials = CredentialsResource.capture(status)
                }
            }
            let securebits = thread.credentials.securebits
            thread.credentials = credentials
            thread.credentials.securebits = securebits
            image.threads.append(thread)
        }
        part("process and threads")
        let probes = try DescriptorTable.collect(self, numbers, flags, answers[0], context, into: &image)
        part("descriptors")
        return Capture(image: image, probes: probes)
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
    let context = try InspectContext(pid: pid)
    var found = layout.obstacles
    for resource in processResources { found += try resource.obstacles(context) }
    found += try Uncarried.guardRegions(context, layout.tracked)
    found += try Uncarried.obstacles(context, seccompFilters: descriptors.seccompFilters)
    found += try DescriptorTable.obstacles(context, descriptors)
    return found
}

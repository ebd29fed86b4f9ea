// What every kind of per-process state has: a question to ask inside the process, an answer to keep, and the calls that
// make it again. Adding a kind adds a file here and a line to the registry.
import LinuxKernel

/// One kind of state of a process.
protocol ProcessResource {
    init()
    /// Adds the calls whose answers this kind needs, to run in the leader.
    mutating func ask(_ context: CaptureContext, _ batch: inout CallBatch) throws
    /// Writes what was found into the image of the process, of its address space or of its threads.
    func collect(_ context: CaptureContext, _ answers: CallResults, into parts: inout ProcessParts) throws
    /// Adds the calls that make it again, to run in the leader of the destination.
    static func restore(_ parts: ProcessParts, _ context: RestoreContext, _ batch: inout CallBatch) throws
    /// They are restored when the threads are there and the signals that wait are queued.
    static var comeWithThreads: Bool { get }
    /// What cannot be carried, found without stopping the process.
    static func obstacles(_ context: InspectContext) throws -> [Obstacle]
}

extension ProcessResource {
    static var comeWithThreads: Bool { false }
    static func obstacles(_ context: InspectContext) throws -> [Obstacle] { [] }
}

/// In the order in which they are restored.
let processResources: [any (ProcessResource & Sendable).Type] = [
    AddressSpaceFields.self, ProcessAttributes.self, SignalActions.self, Timers.self,
]

/// What capture knows besides the answers of the process.
struct CaptureContext {
    let process: SourceProcess
    let status: ProcessStatus
    var pid: Int32 { process.pid }
    func obstacle(_ subject: String, _ reason: String) -> Obstacle {
        Obstacle(pid: pid, process: processName(pid), subject: subject, reason: reason)
    }

    /// - Throws: the reasons, if there are any, why the process or another thread of it cannot be carried.
    func refuse(_ tid: Int32, _ reasons: [String]) throws {
        if reasons.isEmpty { return }
        let subject = tid == pid ? "process" : "thread \(tid)"
        throw EngineError.obstacles(reasons.map { obstacle(subject, $0) })
    }
}

/// What restore knows besides the image.
struct RestoreContext {
    let stub: StubProcess
}

/// What an inspection looks at: a process that runs.
struct InspectContext {
    let pid: Int32
    let process: String
    let status: ProcessStatus

    init(pid: Int32) throws(KernelError) {
        self.pid = pid
        process = processName(pid)
        status = try ProcessStatus(pid: pid)
    }
    func obstacle(_ subject: String, _ reason: String, mayPass: Bool = false) -> Obstacle {
        Obstacle(pid: pid, process: process, subject: subject, reason: reason, mayPass: mayPass)
    }
}

extension CallBatch.DataReference {
    static let none = CallBatch.DataReference(offset: 0, length: 0)
}

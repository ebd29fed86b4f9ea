// A service of Workloads/ in one container with one open-loop client, as a workload: the life that all of them have.
import LinuxKernel

/// What an edge service and its clients are; the rest is alike for all.
protocol EdgeApplication {
    /// Of the container and of the program.
    static var name: String { get }
    /// What the client's thread is called.
    static var clientName: String { get }
    var arguments: [String] { get }
    /// How many files the program may have open.
    var openFiles: Int { get }
    /// Milliseconds after which an answer is late.
    var deadline: Double { get }
    var traffic: any OpenLoopTraffic { get }
    /// Has the service show what it has, after its client has ended, and compares.
    ///
    /// - Parameter closed: why connections ended before.
    func judge(_ endpoint: ServiceEndpoint, closed: [String]) throws -> EdgeJudgement
}

struct EdgeJudgement {
    var requests: [ProbeRequest]
    /// When the service did not run, by its own ticker.
    var gaps: [TickGap]
    var verdicts: [Verdict]
}

extension EdgeApplication {
    var openFiles: Int { 1024 }
}

/// An edge service on the testbed with its client.
final class EdgeService<Application: EdgeApplication>: Workload {
    private let application: Application
    private var service: ServiceContainer
    private var client: OpenLoopClient?
    var containers: [String] { [service.name] }

    init(_ application: Application, _ place: WorkloadPlace) {
        self.application = application
        service = ServiceContainer(place.name(Application.name), place)
    }

    func start(on host: EdgeHost) async throws {
        try await service.start(
            Application.name, application.arguments, openFiles: application.openFiles, on: host)
        client = try OpenLoopClient(application.traffic, to: service.endpoint, name: Application.clientName)
    }

    func finish(after moves: [Move]) async throws -> Outcome {
        guard let client else { throw TestbedError("\(service.name) was not started") }
        service.moved(by: moves)
        let closed = client.stop()
        self.client = nil
        let judgement = try application.judge(service.endpoint, closed: closed)
        let recording = ProbeRecording(judgement.requests, deadline: Int64(application.deadline * 1e6))
        var result = Outcome()
        result.observations = moves.observations(by: recording, and: judgement.gaps)
        result.recording = recording
        result.verdicts = judgement.verdicts
        try await service.remove()
        return result
    }

    func abandon() async {
        _ = client?.stop()
        client = nil
        try? await service.remove()
    }
}

// Collision warning and telemetry as a workload: vehicles report to a roadside service, which keeps and logs every
// report and answers with a warning.
import FoundationEssentials
import LinuxKernel

/// A roadside service on the testbed with all its vehicles.
final class Vehicular: Workload {
    struct Options {
        /// Bytes of tracks.
        var memory: UInt64
        var vehicles = 50
        /// Reports a second of each.
        var rate = 20.0
        var transport = Transport.mixed
        /// Milliseconds.
        var deadline = 20.0
    }

    var containers: [String] { [service.name] }
    private let options: Options
    private var service: ServiceContainer
    private var client: OpenLoopClient?
    private let traffic: VehicleTraffic

    init(_ options: Options, _ place: WorkloadPlace) {
        self.options = options
        service = ServiceContainer(place.name("vehicular"), place)
        traffic = VehicleTraffic(vehicles: options.vehicles, rate: options.rate, transport: options.transport)
    }

    func start(on host: EdgeHost) async throws {
        try await service.start(
            "vehicular",
            ["--memory", "\(options.memory)", "--vehicles", "\(options.vehicles)"] + options.transport.serviceOptions,
            openFiles: max(1024, options.vehicles + 100), on: host)
        client = try OpenLoopClient(traffic, to: service.endpoint, name: "vehicles")
    }

    func finish(after moves: [Move]) async throws -> Outcome {
        guard let client else { throw TestbedError("\(service.name) was not started") }
        service.moved(by: moves)
        let closed = client.stop()
        self.client = nil
        let oracle = try VehicularOracle.ask(service.endpoint, about: traffic, closed: closed)
        let recording = ProbeRecording(oracle.reports.map(\.request), deadline: Int64(options.deadline * 1e6))
        var result = Outcome()
        result.observations = moves.observations(by: recording, and: oracle.state.gaps)
        result.recording = recording
        result.verdicts = oracle.verdicts()
        try await service.remove()
        return result
    }

    func abandon() async {
        _ = client?.stop()
        client = nil
        try? await service.remove()
    }
}

extension VehicularOracle {
    /// Has the service show what it has, after its vehicles have ended.
    static func ask(_ endpoint: ServiceEndpoint, about traffic: VehicleTraffic, closed: [String]) throws -> Self {
        VehicularOracle(
            vehicles: traffic.vehicles, transports: traffic.transports, reports: traffic.reports.all,
            log: KeptReport.list(try endpoint.ask(VehicularMessage.log)),
            tracks: KeptReport.list(try endpoint.ask(VehicularMessage.tracks)),
            state: try endpoint.state(VehicularMessage.check), closed: closed, superseded: traffic.superseded,
            strange: traffic.strange)
    }
}

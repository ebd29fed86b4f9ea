// Collision warning and telemetry as a workload: vehicles report to a roadside service, which keeps and logs every
// report and answers with a warning.
import FoundationEssentials
import LinuxKernel

/// A roadside service with all its vehicles.
struct Vehicular: EdgeApplication {
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

    static let name = "vehicular", clientName = "vehicles"
    private let options: Options
    private let reports: VehicleTraffic
    var traffic: any OpenLoopTraffic { reports }
    var deadline: Double { options.deadline }
    /// Each vehicle may have a connection.
    var openFiles: Int { max(1024, options.vehicles + 100) }
    var arguments: [String] {
        ["--memory", "\(options.memory)", "--vehicles", "\(options.vehicles)"] + options.transport.serviceOptions
    }

    init(_ options: Options) {
        self.options = options
        reports = VehicleTraffic(vehicles: options.vehicles, rate: options.rate, transport: options.transport)
    }

    func judge(_ endpoint: ServiceEndpoint, closed: [String]) throws -> EdgeJudgement {
        let oracle = try VehicularOracle.ask(endpoint, about: reports, closed: closed)
        return EdgeJudgement(
            requests: oracle.reports.map(\.request), gaps: oracle.state.gaps, verdicts: oracle.verdicts())
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

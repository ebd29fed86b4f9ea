// What the vehicles send, and what they are answered.
import LinuxKernel

/// All vehicles of a client, which report in turn: at evenly spaced instants, so that the service is asked often enough
/// for its gaps to show.
final class VehicleTraffic: OpenLoopTraffic {
    let vehicles: Int
    let transports: [Transport]
    let period: Int64
    private var grid = StreetGrid()
    private var began: Int64?
    private(set) var reports = ChunkedList<VehicleReport>()
    /// Answers that said that a newer report was known.
    private(set) var superseded = 0
    /// Answers to nothing that was asked.
    private(set) var strange = 0
    private var answered = (all: 0, overTCP: 0)
    private var sentOverTCP = 0

    /// - Parameter rate: reports a second of each vehicle.
    init(vehicles: Int, rate: Double, transport: Transport) {
        self.vehicles = vehicles
        transports = (0..<vehicles).map(transport.of)
        period = Int64(1e9 / (rate * Double(vehicles)))
    }

    var outstanding: (all: Int, overTCP: Int) {
        (reports.count - answered.all, sentOverTCP - answered.overTCP)
    }

    func send(due: Int64, over links: [ServiceLink]) {
        let vehicle = reports.count % vehicles
        let now = monotonicNow()
        let start = began ?? due
        began = start
        let report = VehicleReport(
            vehicle: UInt32(vehicle), sequence: UInt32(reports.count / vehicles + 1),
            state: grid.state(of: vehicle, after: Double(now - start) / 1e9),
            request: ProbeRequest(intended: due, sent: now))
        reports.append(report)
        if transports[vehicle] == .tcp { sentOverTCP += 1 }
        links[vehicle].send(report.message)
    }

    func take(_ message: UnsafeRawBufferPointer, at now: Int64) {
        guard let answer = Acknowledgement(message), let index = index(answer.vehicle, answer.sequence) else {
            strange += 1
            return
        }
        if reports[index].request.answered > 0 {
            reports[index].request.duplicates += 1
        } else if answer.kept {
            reports[index].request.answered = now
            (reports[index].order, reports[index].warning) = (answer.order, answer.warning)
            answered.all += 1
            if transports[Int(answer.vehicle)] == .tcp { answered.overTCP += 1 }
        } else {
            superseded += 1
        }
    }

    private func index(_ vehicle: UInt32, _ sequence: UInt32) -> Int? {
        guard vehicle < vehicles, sequence > 0 else { return nil }
        let index = (Int(sequence) - 1) * vehicles + Int(vehicle)
        return index < reports.count ? index : nil
    }
}

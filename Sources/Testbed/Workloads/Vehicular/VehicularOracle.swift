// What the roadside service must have kept, given what it acknowledged.

/// Judges the service's tracks and its log by what the vehicles know.
struct VehicularOracle {
    var vehicles: Int
    var transports: [Transport]
    /// In the order in which they were sent: vehicle after vehicle, again and again.
    var reports: [VehicleReport]
    /// The service's log, and the tracks in its memory, vehicle after vehicle, oldest report first.
    var log: [KeptReport]
    var tracks: [KeptReport]
    var state: VehicularState
    /// Why connections ended.
    var closed: [String] = []
    var superseded = 0
    var strange = 0

    func verdicts() -> [Verdict] {
        let (missing, acknowledged) = lost()
        let disorder = logErrors()
        let gaps = sequenceErrors()
        let (wrong, warned) = warningErrors()
        var result = [
            Verdict(
                "no report lost after it was acknowledged", missing.log == 0 && missing.tracks == 0,
                "\(acknowledged) acknowledged, \(missing.tracks) not in the tracks, \(missing.log) not in the log"
                    + (superseded > 0 ? ", \(superseded) came after a newer one" : "")),
            Verdict(
                "log in order, each report once", disorder == 0,
                "\(log.count) records, \(disorder) wrong"),
            Verdict(
                "each vehicle's reports in sequence", gaps == 0 && strange == 0,
                "\(gaps) out of sequence" + (strange > 0 ? ", \(strange) answers to no report" : "")),
            Verdict("every warning right", wrong == 0, "\(log.count) computed again, \(warned) warned, \(wrong) wrong"),
            Verdict(
                "tracks exact", state.wrong == 0 && state.reports == log.count,
                "\(state.records) records checked, \(state.wrong) wrong, \(state.reports) reports kept"),
        ]
        if transports.contains(.tcp) { result.append(connections()) }
        return result
    }

    private func index(_ report: KeptReport) -> Int? {
        guard report.vehicle < vehicles, report.sequence > 0 else { return nil }
        let index = (Int(report.sequence) - 1) * vehicles + Int(report.vehicle)
        return index < reports.count ? index : nil
    }

    /// Whether a record is what a vehicle sent.
    private func isTrue(_ record: KeptReport) -> Bool {
        guard record.whole, let index = index(record) else { return false }
        return record.state == reports[index].state && record.time == reports[index].request.sent
    }

    /// By report: the order that true records give it.
    private func orders(_ records: [KeptReport]) -> [Int: UInt64] {
        Dictionary(
            records.filter(isTrue).map { (index($0)!, $0.order) }, uniquingKeysWith: { first, _ in first })
    }

    private func lost() -> (missing: (log: Int, tracks: Int), acknowledged: Int) {
        let (logged, tracked) = (orders(log), orders(tracks))
        // A ring that is full has let go of what is older than its oldest.
        let room = state.records / vehicles
        var oldest = [UInt64](repeating: 0, count: vehicles)
        for (vehicle, kept) in Dictionary(grouping: tracks, by: \.vehicle) where vehicle < vehicles {
            if kept.count >= room { oldest[Int(vehicle)] = kept[0].order }
        }
        let acknowledged = reports.indices.filter { reports[$0].order > 0 }
        let missing = (
            log: acknowledged.count { logged[$0] != reports[$0].order },
            tracks: acknowledged.count {
                reports[$0].order >= oldest[Int(reports[$0].vehicle)] && tracked[$0] != reports[$0].order
            }
        )
        return (missing, acknowledged.count)
    }

    private func logErrors() -> Int {
        var seen: Set<Int> = []
        return log.enumerated().count { place, record in
            let isNew = index(record).map { seen.insert($0).inserted } ?? false
            return !isTrue(record) || !isNew || record.order != UInt64(place + 1)
        }
    }

    /// Over TCP nothing may be missing before what was kept; datagrams may be lost, but not come back.
    private func sequenceErrors() -> Int {
        var last = [UInt32](repeating: 0, count: vehicles)
        return log.count { record in
            guard record.vehicle < vehicles else { return true }
            let vehicle = Int(record.vehicle)
            defer { last[vehicle] = record.sequence }
            return transports[vehicle] == .tcp
                ? record.sequence != last[vehicle] + 1 : record.sequence <= last[vehicle]
        }
    }

    private func warningErrors() -> (wrong: Int, warned: Int) {
        var rule = CollisionRule(vehicles: vehicles)
        var (wrong, warned) = (0, 0)
        for record in log where record.vehicle < vehicles {
            let right = rule.keep(Int(record.vehicle), at: record.time, x: record.state.x, y: record.state.y)
            let told = index(record).map { reports[$0] }
            if record.warning != right || told.map({ $0.order > 0 && $0.warning != right }) ?? false { wrong += 1 }
            if right != .none { warned += 1 }
        }
        return (wrong, warned)
    }

    private func connections() -> Verdict {
        let unanswered = reports.count { transports[Int($0.vehicle)] == .tcp && $0.request.answered == 0 }
        let count = transports.count { $0 == .tcp }
        return Verdict(
            "TCP connections never closed", closed.isEmpty && unanswered == 0,
            closed.first ?? (unanswered == 0 ? "\(count) throughout" : "\(unanswered) reports without an answer"))
    }
}

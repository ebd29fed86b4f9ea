// How near the page stream comes to what the link carries.
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration

extension Bench {
    func stream(_ bed: BenchBed, _ result: inout BenchCase) async throws {
        let link = bed.topology.backhaul
        let bounded = link.bitsPerSecond != nil
        let title = bounded ? "1 Gbit/s" : "unlimited"
        // Longer than what fits the sockets' buffers by far.
        let dirtier = try await BenchDirtier(on: bed, memory: 1 << 30, rate: 0)
        var yardsticks: [Double] = []
        var (sent, applied): ([Double], [Double]) = ([], [])
        var (sentRatio, appliedRatio): ([Double], [Double]) = ([], [])
        var failure: (any Error)?
        do {
            for _ in 0..<options.repetitions {
                let source = dirtier.at
                let destination = bed.topology.hosts.first { $0 != source }!
                let yardstick = try Iperf.run(
                    from: source.namespace, to: destination.namespace, destination.backhaulAddress
                ).bitsPerSecond
                let (report, verdict) = try await dirtier.move(MigrationPlan(technique: .cold))
                result.migrations[title, default: []].append(report)
                result.dirtier[title, default: []].append(verdict)
                guard let last = report.passes.last, last.duration > 0,
                    let begin = report.steps.first(where: { $0.side == "source" && $0.name == "send pages" })?.start,
                    let end = report.steps.first(where: { $0.side == "destination" && $0.name == "read promise" })?
                        .start
                else { throw TestbedError("the report of a cold move names no last pass") }
                yardsticks.append(yardstick / 1e9)
                sent.append(Double(last.bytes) * 8 / last.duration / 1e6)
                applied.append(Double(last.bytes) * 8 / (end - begin) / 1e3)
                sentRatio.append(sent.last! / yardsticks.last!)
                appliedRatio.append(applied.last! / yardsticks.last!)
            }
            try await dirtier.remove()
        } catch { failure = error }
        result.figures += [
            Figure("\(title): iperf3", "Gbit/s", yardsticks, digits: 3),
            Figure("\(title): pages, until sent", "Gbit/s", sent, digits: 3),
            Figure("\(title): pages, until applied", "Gbit/s", applied, digits: 3),
            Figure(
                "\(title): ratio to iperf3, until sent", "", sentRatio, digits: 3,
                aim: bounded ? .median(atLeast: 0.9) : nil),
            Figure(
                "\(title): ratio to iperf3, until applied", "", appliedRatio, digits: 3,
                aim: bounded ? .median(atLeast: 0.9) : nil),
        ]
        if let reports = result.migrations[title] { result.freezes.append(FreezeSteps(title, reports)) }
        if !bounded {
            result.notes += [
                "until sent: bytes of the last pass over its duration, the scan included; until applied: from the first"
                    + " page to the last one in place at the destination, what the sockets held included",
                "1 GiB; iperf3 runs 3 s before each move, in its direction, in the same namespaces; bytes of the stream"
                    + " count with their frame headers, iperf3's as received",
            ]
        }
        result.verdicts.append(.oracle(result.dirtier[title] ?? [], planned: options.repetitions, "\(title): "))
        if let failure { throw failure }
    }
}

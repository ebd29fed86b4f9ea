// A program that dirties its memory, moved by each technique and at each size.
import Migration

extension Bench {
    func techniques(_ bed: BenchBed, _ result: inout BenchCase) async throws {
        let dirtier = try await BenchDirtier(on: bed, memory: 512 << 20)
        let order: [Technique] = [.cold, .preCopy, .migrror]
        var failure: (any Error)?
        do {
            // In turn, so that whatever else the machine does meets all alike.
            for _ in 0..<options.repetitions {
                for technique in order {
                    let (report, verdict) = try await dirtier.move(MigrationPlan(technique: technique))
                    result.migrations[technique.rawValue, default: []].append(report)
                    result.dirtier[technique.rawValue, default: []].append(verdict)
                }
            }
            try await dirtier.remove()
        } catch { failure = error }
        for technique in order {
            let name = technique.rawValue
            let (reports, verdicts) = (result.migrations[name] ?? [], result.dirtier[name] ?? [])
            result.figures += [
                Figure(
                    "\(name): engine downtime", "ms", reports.map(\.engineDowntime),
                    aim: technique == .migrror ? .median(atMost: 2) : nil),
                Figure("\(name): workload downtime", "ms", zip(reports, verdicts).compactMap { $1.downtime($0) }),
                Figure("  of it after the release", "ms", zip(reports, verdicts).compactMap { $1.delay($0) }),
            ]
        }
        for technique in order {
            let (reports, verdicts) = (
                result.migrations[technique.rawValue] ?? [], result.dirtier[technique.rawValue] ?? []
            )
            result.figures.append(
                Figure(
                    "\(technique.rawValue): largest gap while copying", "ms",
                    zip(reports, verdicts).map { $1.disturbance($0) }))
            if !reports.isEmpty { result.freezes.append(FreezeSteps(technique.rawValue, reports)) }
        }
        for technique in order {
            let reports = result.migrations[technique.rawValue] ?? []
            result.figures += [
                Figure("\(technique.rawValue): migration time", "ms", reports.map(\.migrationTime), digits: 0),
                Figure(
                    "\(technique.rawValue): pages sent in the freeze", "",
                    reports.compactMap { $0.passes.last.map { Double($0.pages) } }, digits: 0),
            ]
        }
        result.notes.append(
            "workload downtime: the dirtier's own gap between two ticks of 100 µs, in which the blackout lies; the dirtier keeps"
                + " its 240 largest gaps, so on a busy machine the blackout may not be among them (n is smaller then)")
        result.verdicts.append(
            .oracle(result.dirtier.values.flatMap { $0 }, planned: options.repetitions * order.count))
        if let failure { throw failure }
    }

    func sizes(_ bed: BenchBed, _ result: inout BenchCase, with earlier: BenchReport) async throws {
        var points: [(x: Double, y: Double)] = []
        var best: [(x: Double, y: Double)] = []
        var planned = 0
        var failure: (any Error)?
        do {
            for mebibytes in options.quick ? [16, 2048] : [16, 2048, 8192] as [UInt64] {
                let title = "\(ByteCount(mebibytes << 20))"
                // Source, destination and the dirtier's own table.
                let needed = mebibytes << 21 + mebibytes << 18
                guard availableMemory() > needed else {
                    result.notes.append(
                        "\(title) left out: it needs \(needed >> 30) GiB of free memory, \(availableMemory() >> 30) GiB are there"
                    )
                    continue
                }
                planned += options.repetitions
                let dirtier = try await BenchDirtier(on: bed, memory: mebibytes << 20)
                for _ in 0..<options.repetitions {
                    let (report, verdict) = try await dirtier.move(MigrationPlan(technique: .migrror))
                    result.migrations[title, default: []].append(report)
                    result.dirtier[title, default: []].append(verdict)
                }
                try await dirtier.remove()
                let reports = result.migrations[title]!
                points.append((Double(mebibytes) / 1024, reports.map(\.engineDowntime).median))
                best.append((points.last!.x, reports.map(\.engineDowntime).min()!))
                result.freezes.append(FreezeSteps(title, reports))
                result.figures += [
                    Figure("\(title): engine downtime", "ms", reports.map(\.engineDowntime)),
                    Figure(
                        "\(title): workload downtime", "ms",
                        zip(reports, result.dirtier[title]!).compactMap { $1.downtime($0) }),
                    Figure(
                        "  of it after the release", "ms",
                        zip(reports, result.dirtier[title]!).compactMap { $1.delay($0) }),
                ]
            }
        } catch { failure = error }
        if let same = earlier.cases.first(where: { $0.name == BenchName.techniques.rawValue })?
            .migrations[Technique.migrror.rawValue], !same.isEmpty
        {
            points.append((0.5, same.map(\.engineDowntime).median))
            best.append((0.5, same.map(\.engineDowntime).min()!))
            result.notes.append("the growth counts the 512 MiB of case \(BenchName.techniques.rawValue) too")
        }
        if let line = fitLine(points), let lowest = fitLine(best) {
            result.figures.append(
                Figure("growth of the engine downtime", "ms/GiB", [line.slope], digits: 3, aim: .each(atMost: 0.5)))
            result.figures.append(Figure("  the same by the minima", "ms/GiB", [lowest.slope], digits: 3))
            result.notes.append(
                "growth: least squares through the medians, \(grouped(line.start, digits: 2)) ms at no memory;"
                    + " better would be 0.3 ms/GiB")
        }
        result.verdicts.append(.oracle(result.dirtier.values.flatMap { $0 }, planned: planned))
        if let failure { throw failure }
    }
}

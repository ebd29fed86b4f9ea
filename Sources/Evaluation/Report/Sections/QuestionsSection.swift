// The report's section that answers the questions which were asked, each from the data or not at all.
import GRDB

/// One question with what the runs say to it.
struct Answered {
    var question: String
    /// Sentences.
    var answer: String
    var table: ReportTable?

    var blocks: [ReportBlock] { [.heading(question), .text(answer)] + (table.map { [.table($0)] } ?? []) }
    static let silent = "These runs cannot say: "
}

extension EvaluationReport {
    func questions(_ places: Places) -> ReportSection {
        let answers = [
            underTen(places), against(places), advantageEnd(places), costs(places), eventSize(places),
            averageRate(places),
        ]
        return ReportSection(
            title: "Questions and answers",
            blocks: [
                .text(
                    "Each answer is computed from the runs. Brackets hold 95 % bootstrap intervals of medians and of differences "
                        + "of medians; a difference counts as shown when its interval leaves out 0.")
            ] + answers.flatMap(\.blocks))
    }

    // ---- Under 10 ms? --------------------------------------------------------------------------------------

    private func underTen(_ places: Places) -> Answered {
        let question = "Is MiGrror's downtime under 10 ms, client-seen, and when not?"
        let mine = places.all.filter { $0.parameters.technique == .migrror }
        let seen = mine.filter(\.hasClient)
        guard !mine.isEmpty else { return Answered(question: question, answer: Answered.silent + "no run of MiGrror.") }
        func sentence(_ places: [PlaceRuns], _ by: String) -> String {
            let all = places.flatMap(\.seenDowntimes)
            let under = all.count { $0 < 10 }
            let sure = places.count { place in
                Bootstrap(resamples: 2000).median(of: place.seenDowntimes).map { $0.upper < 10 } ?? false
            }
            return
                "As \(by) saw it, \(grouped(Double(under))) of \(grouped(Double(all.count))) migrations by MiGrror were under "
                + "10 ms (all points together: median \(medianText(all)) ms, greatest \(measured(Sample(all).max)) ms); at "
                + "\(sure) of \(places.count) points the median's whole interval is under 10 ms. "
        }
        var answer = seen.isEmpty ? "No workload here had a client. " : sentence(seen, "clients")
        let alone = mine.filter { !$0.hasClient }
        if !alone.isEmpty { answer += sentence(alone, "workloads without a client") }
        let over = mine.filter { $0.seenDowntimes.contains { $0 >= 10 } }
        answer +=
            over.isEmpty
            ? "There was no exception." : "The points with exceptions, those of the greatest medians first:"
        let rows = over.sorted { Sample($0.seenDowntimes).median > Sample($1.seenDowntimes).median }.map { place in
            let values = place.seenDowntimes
            return [
                places.name(place.parameters), place.hasClient ? "client" : "workload", "\(values.count)",
                "\(values.count { $0 >= 10 })", medianText(values), measured(Sample(values).max),
            ]
        }
        let table = ReportTable(
            columns: [
                .init("point", false), .init("seen by", false), .init("migrations"), .init("10 ms or more"),
                .init("median (ms)"), .init("greatest (ms)"),
            ], rows: rows, note: "A point is named by what is not as at most points of the plan.", query: Places.query)
        return Answered(question: question, answer: answer, table: over.isEmpty ? nil : table)
    }

    // ---- Against pre-copy ----------------------------------------------------------------------------------

    private func against(_ places: Places) -> Answered {
        let question = "Against pre-copy under equal handover policy: where does MiGrror lose, where does it win?"
        let pairs = places.pairs(.migrror, .preCopy)
        guard !pairs.isEmpty else {
            return Answered(question: question, answer: Answered.silent + "no point has both techniques.")
        }
        var (sentences, rows): ([String], [[String]]) = ([], [])
        for policy in pairs.map(\.first.parameters.handover).uniqued {
            var parts: [(lost: Int, text: String)] = []
            for metric in Self.compared {
                let held = pairs.filter { $0.first.parameters.handover == policy }.compactMap {
                    pair -> Comparison? in
                    let (a, b) = (pair.first.blocks(metric.column), pair.second.blocks(metric.column))
                    return a.joined().isEmpty || b.joined().isEmpty ? nil : Comparison(a, b)
                }
                guard !held.isEmpty else { continue }
                let (worse, better) = (held.count { $0.sign > 0 }, held.count { $0.sign < 0 })
                let ratios = held.map(\.ratio).filter(\.isFinite)
                rows.append([
                    policy.rawValue, metric.name, "\(held.count)", "\(worse)", "\(better)",
                    "\(held.count - worse - better)", medianText(ratios),
                ])
                if worse + better > 0 {
                    parts.append(
                        (worse, "\(metric.name) worse at \(worse), better at \(better) of \(held.count) points"))
                }
            }
            let words = parts.sorted { $0.lost > $1.lost }.map(\.text).joined(separator: "; ")
            sentences.append("\(policy.rawValue): " + (words.isEmpty ? "no difference is shown" : words) + ".")
        }
        return Answered(
            question: question, answer: sentences.joined(separator: " ") + " The places are listed above.",
            table: ReportTable(
                columns: [
                    .init("handover", false), .init("of", false), .init("points"), .init("worse"), .init("better"),
                    .init("not shown"), .init("MiGrror ÷ pre-copy, median"),
                ], rows: rows,
                note: "The last column: the ratio of the two medians at each point, in the median over the points.",
                query: Places.query))
    }
}

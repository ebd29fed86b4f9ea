// The report's section that answers the questions which were asked, each from the data or not at all.
import GRDB
import Testbed

/// One question with what the runs say to it.
struct Answered {
    var question: String
    /// Sentences.
    var answer: String
    var figure: ReportFigure?
    var table: ReportTable?

    var blocks: [ReportBlock] {
        [.heading(question), .text(answer)] + (figure.map { [.figure($0)] } ?? [])
            + (table.map { [.fold("The figures", [.table($0)])] } ?? [])
    }
    static let silent = "These runs cannot say: "
    var isSilent: Bool { answer.hasPrefix(Self.silent) }
}

extension EvaluationReport {
    func questions(_ places: Places) throws -> ReportSection {
        let all = [
            underTen(places), against(places), advantageEnd(places), try keepingUp(places), costs(places),
            frontier(places), eventSize(places), averageRate(places),
        ]
        let answers = all.filter { !$0.isSilent }, open = all.filter(\.isSilent)
        return ReportSection(
            title: "Questions and answers",
            blocks: [
                .text(
                    "Each answer is computed from the runs. Brackets hold 95 % bootstrap intervals of medians and of differences "
                        + "of medians; a difference counts as shown when its interval leaves out 0.")
            ] + answers.flatMap(\.blocks)
                + (open.isEmpty
                    ? [] : [.fold("Questions that these runs do not answer: \(open.count)", open.flatMap(\.blocks))]))
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
        let strip = RowPlot(
            axis: Axis("downtime (ms)", .log),
            rows: mine.filter { !$0.seenDowntimes.isEmpty }.sorted {
                Sample($0.seenDowntimes).median > Sample($1.seenDowntimes).median
            }.prefix(30).map { place in
                RowPlot.Row(
                    group: "", name: places.name(place.parameters), look: Look.of("MiGrror", 0),
                    median: Sample(place.seenDowntimes).median, values: place.seenDowntimes,
                    note: "\(place.seenDowntimes.count { $0 < 10 }) of \(place.seenDowntimes.count)")
            }, levels: [(10, "10 ms")])
        let figure = ReportFigure(
            id: "under-ten", title: "MiGrror's downtime, each migration",
            reading:
                "A dot a migration, the marker their median, at the points of the greatest medians (at most 30); at the end of "
                + "a row how many were under 10 ms.", svg: strip.svg(title: "downtime by point"), query: Places.query)
        let table = ReportTable(
            columns: [
                .init("point", false), .init("seen by", false), .init("migrations"), .init("10 ms or more"),
                .init("median (ms)"), .init("greatest (ms)"),
            ], rows: rows, note: "A point is named by what is not as at most points of the plan.", query: Places.query)
        return Answered(question: question, answer: answer, figure: figure, table: over.isEmpty ? nil : table)
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
            let mine = pairs.filter { $0.first.parameters.handover == policy }
            var parts: [(lost: Int, text: String)] = []
            for metric in Self.compared {
                let held = Contrast(places, of: mine, isTime: metric.unit == "ms") { $0.blocks(metric.column) }
                guard !held.rows.isEmpty else { continue }
                let (worse, better, count) = (held.worse.count, held.better.count, held.rows.count)
                rows.append([
                    policy.rawValue, metric.name, "\(count)", "\(worse)", "\(better)", "\(held.equal.count)",
                    "\(count - worse - better - held.equal.count)",
                    medianText(held.rows.map(\.comparison.ratio).filter(\.isFinite)),
                ])
                if worse + better > 0 {
                    parts.append((worse, "\(metric.name) worse at \(worse), better at \(better) of \(count) places"))
                }
            }
            let words = parts.sorted { $0.lost > $1.lost }.map(\.text).joined(separator: "; ")
            sentences.append("\(policy.rawValue): " + (words.isEmpty ? "no difference is shown" : words) + ".")
        }
        let times = Contrast(places, of: pairs) { $0.blocks("handover_ms") }
        let figure = ReportFigure(
            id: "handover", title: "From the trigger, or from being ready, to the release",
            reading: "Ratio of the medians with its 95 % interval, read as the figure on the first screen.",
            svg: times.forest("time to release").svg(title: "time to release"), query: Places.query)
        return Answered(
            question: question, answer: sentences.joined(separator: " ") + " The places are listed below.",
            figure: times.rows.isEmpty ? nil : figure,
            table: ReportTable(
                columns: [
                    .init("handover", false), .init("of", false), .init("places"), .init("worse"), .init("better"),
                    .init("shown to be equal"), .init("not shown"), .init("MiGrror ÷ pre-copy, median"),
                ], rows: rows,
                note: "The last column: the ratio of the two medians at each place, in the median over the places.",
                query: Places.query))
    }
}

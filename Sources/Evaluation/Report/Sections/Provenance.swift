// The report's sections on where its figures come from, and what the published simulation says.
import FoundationEssentials
import GRDB

extension EvaluationReport {
    func published() -> ReportSection {
        let (size, bandwidth) = (134_217_728.0, 125e6)
        return ReportSection(
            title: "The published simulation beside it",
            blocks: [
                .text(
                    "MiGrror's authors published a simulator whose downtimes are constants, never measured: they do not depend on "
                        + "size, bandwidth, load or dirty rate in MiGrror's case. Here for 128 MiB at 1 Gbit/s and a radio handoff "
                        + "of 0 ms, without jitter. Nothing in this report is calibrated to them."),
                .table(
                    ReportTable(
                        columns: [
                            .init("technique (published simulation)", false), .init("migration time (ms)"),
                            .init("downtime computed (ms)"), .init("downtime printed (ms)"), .init("traffic × size"),
                        ],
                        rows: PublishedSimulation.techniques.map { technique in
                            [
                                technique.name, measured(technique.migrationTime(size: size, bandwidth: bandwidth)),
                                measured(technique.rawDowntime(size: size, bandwidth: bandwidth, handoff: 0)),
                                measured(technique.downtime(size: size, bandwidth: bandwidth, handoff: 0)),
                                measured(technique.traffic.value),
                            ]
                        },
                        note:
                            "MiGrror's downtime there is 5 × (handoff + 100 ms), printed divided by 100; MiGrror + post's is "
                            + "printed as it is computed.")),
            ])
    }

    func provenance() throws -> ReportSection {
        var blocks: [ReportBlock] = []
        let failures = try results.rows(
            "SELECT p.key, r.repetition, r.error FROM run r JOIN point p ON p.id = r.point WHERE r.passed = 0")
        blocks.append(.text(failures.isEmpty ? "No run failed." : "Runs that failed:"))
        if !failures.isEmpty {
            blocks.append(
                .list(
                    failures.map {
                        "\($0["key"] as String) #\($0["repetition"] as Int): \($0["error"] as String? ?? "?")"
                    }))
        }
        let made = try results.store.made(passed: false)
        let missing = plan.points.compactMap { point, repetitions -> String? in
            let count = (1...repetitions).count { made.contains(PlannedRun(parameters: point, repetition: $0).name) }
            return count < repetitions ? "\(point.key): \(count) of \(repetitions)" : nil
        }
        if !missing.isEmpty {
            blocks += [.text("Planned and not run (runs made of those planned):"), .list(missing)]
        }
        let sessions = try results.rows("SELECT * FROM session ORDER BY id")
        let leftOut = sessions.map { $0["left_out"] as String }.filter { !$0.isEmpty }.uniqued
        if !leftOut.isEmpty {
            blocks += [
                .text("Techniques that the machine does not have, and whose runs were left out:"), .list(leftOut),
            ]
        }
        blocks.append(
            .table(
                ReportTable(
                    columns: [
                        .init("started (UTC)", false), .init("kernel", false), .init("processor", false),
                        .init("processors"), .init("memory (GiB)"), .init("runtime", false),
                        .init("services", false), .init("apus (SHA-256)", false), .init("load before", false),
                    ],
                    rows: sessions.map { row in
                        [
                            row["started_at"], row["kernel"], row["processor"], "\(row["processors"] as Int)",
                            measured(Double(row["memory"] as Int64) / Double(1 << 30)), row["runtime"],
                            row["services"], String((row["program"] as String).prefix(12)), row["load"],
                        ]
                    })))
        blocks += [
            .text(
                "Every run is on a fresh container; its content is verified after it. The order is shuffled by the plan's seed, "
                    + "each repetition over all points. The plan:"), .code(plan.source),
        ]
        return ReportSection(title: "Where the figures come from", blocks: blocks)
    }
}

import ArgumentParser
import Evaluation
@preconcurrency import Glibc
import LinuxKernel
import Testbed

struct EvaluateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "evaluate",
        abstract: "Run experiments by a plan, and report on them.",
        subcommands: [Run.self, Report.self, Export.self, Claims.self])

    struct Run: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make the runs of a plan that have not been made yet.",
            discussion: """
                Each run's result is kept when it has ended, so an interrupted evaluation goes on where it was. \
                Ends with status 1 if a run failed. Nothing but the results is left afterwards.
                """)

        @Argument(help: "The plan, a YAML file.")
        var plan: String
        @Option(help: "Where the results go, a SQLite database. [default: PLAN's name with .sqlite]")
        var results: String?
        @Option(help: "Begin no run after this many minutes.")
        var timeLimit: Double?
        @Flag(help: "Make those runs again that failed.")
        var retryFailed = false
        @Option(help: "Name of the testbed.")
        var instance = "evaluate"
        @Option(help: "The folder of the workloads' programs.")
        var programs = ".build/workloads"
        @Flag(help: "Only show what would be run.")
        var dryRun = false

        func run() async throws {
            if let timeLimit, !(timeLimit > 0 && timeLimit <= 10_000) {
                throw ValidationError("--time-limit \(timeLimit): above 0 and at most 10000 minutes")
            }
            setvbuf(stdout, nil, _IOLBF, 0)
            let plan = try EvaluationPlan(file: plan)
            if dryRun {
                for (point, repetitions) in plan.points { print("\(repetitions) × \(point.key)") }
                print("\(plan.runs.count) runs, some \((plan.hours * 10).rounded() / 10) hours")
                return
            }
            var options = Evaluation.Options()
            options.instance = instance
            options.programs = programs
            options.timeLimit = timeLimit.map { $0 * 60 }
            options.retryFailed = retryFailed
            let path = results ?? "\(plan.name).sqlite"
            let store = try ResultStore(path, create: true)
            let start = monotonicNow()
            let summary = try await Evaluation(plan, store: store, options: options) { line in
                print(Demo.progressLine(Double(monotonicNow() - start) / 1e9, line))
            }.run()
            print("\n  \(summary.made) runs made, \(summary.failed) failed, \(summary.left) left. Results: \(path)")
            if !summary.leftovers.isEmpty { print("  LEFT BEHIND: \(summary.leftovers.joined(separator: ", "))") }
            if summary.failed > 0 || !summary.leftovers.isEmpty { throw ExitCode(1) }
        }
    }

    struct Report: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Write the report of results: one HTML page, and every figure as SVG.")
        @Argument(help: "The results, a SQLite database.")
        var results: String
        @Option(help: "The folder to write into. [default: RESULTS' name with -report]")
        var to: String?

        func run() throws {
            let store = try ResultStore(results)
            let name = results.hasSuffix(".sqlite") ? String(results.dropLast(7)) : results
            print(try EvaluationReport(store).write(to: to ?? name + "-report"))
        }
    }

    struct Claims: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Compute again what a text claims of results, and say where it is not so.",
            discussion: """
                The text is Markdown; behind each claim a block that begins with ```claim names data, query and figures \
                (docs/evaluation.md). Ends with status 1 if one differs beyond rounding, or has fewer values than it says.
                """)
        @Argument(help: "The claims.")
        var file: String
        @Flag(help: "Write the figures into the file instead.")
        var fill = false

        func run() throws {
            let claims = try ClaimsFile(file)
            if fill { return try claims.fill() }
            let mistakes = try claims.check()
            for mistake in mistakes { print(mistake) }
            if !mistakes.isEmpty { throw ExitCode(1) }
            print("\(claims.count) claims hold")
        }
    }

    struct Export: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print results for other programs, a row or an object a migration.")
        @Argument(help: "The results, a SQLite database.")
        var results: String
        @Option(help: "csv or json.")
        var format = ResultStore.ExportFormat.csv
        @Option(help: "One of the tables instead: \(ResultStore.tables.joined(separator: ", ")).")
        var table: String?

        func run() throws {
            if let table, !ResultStore.tables.contains(table) {
                throw ValidationError("--table \(table): none of \(ResultStore.tables.joined(separator: ", "))")
            }
            try ResultStore(results).export(format, table: table) { print($0) }
        }
    }
}

extension ResultStore.ExportFormat: ExpressibleByArgument {}

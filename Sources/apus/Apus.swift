import Agent
import ArgumentParser
import Glibc
import LinuxKernel

@main
struct Apus: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus",
        abstract: "Live-migrates running containers between Linux hosts.",
        discussion: ExitStatus.help,
        subcommands: [
            AgentCommand.self, RunCommand.self, PsCommand.self, LogsCommand.self, InspectCommand.self,
            MigrateCommand.self, HandoverCommand.self, CancelCommand.self, ResolveCommand.self, KillCommand.self,
            RmCommand.self, DoctorCommand.self, GuardCommand.self, LinkCommand.self, MachineCommand.self,
            TestbedCommand.self, DemoCommand.self, BenchCommand.self, EvaluateCommand.self, PredictCommand.self,
        ])

    /// Not asynchronous, so that the agent can enter its network namespace while there is one thread only.
    static func main() {
        let command: any ParsableCommand
        do {
            command = try parseAsRoot()
        } catch {
            // Help and version are successes, written to standard output; anything else is a mistake in the usage.
            let isHelp = exitCode(for: error) == .success
            let text = fullMessage(for: error)
            if isHelp { print(text) } else { complain(AgentError(.badRequest, message(for: error)), text + "\n") }
            Terminal.end(isHelp ? ExitStatus.ok.rawValue : ExitStatus.usage.rawValue)
        }
        if command is any AsyncParsableCommand {
            if command is any Interruptible { Interruption.block() }
            let asynchronous = Handed(command: command as! any AsyncParsableCommand)
            Task.detached { await run(asynchronous) }
            while true { pause() }
        }
        do {
            var command = command
            try command.run()
            Terminal.end(0)
        } catch {
            fail(error)
        }
    }

    /// A command on its way to the task that runs it; the thread that parsed it only waits from then on.
    private struct Handed: @unchecked Sendable { let command: any AsyncParsableCommand }

    nonisolated private static func run(_ handed: Handed) async {
        var command = handed.command
        do {
            try await command.run()
            Terminal.end(0)
        } catch {
            fail(error)
        }
    }

    nonisolated private static func fail(_ error: any Error) -> Never {
        if let status = error as? ExitStatus { Terminal.end(status.rawValue) }
        // `--help` is a command of its own that ends in an "error", like CleanExit: successes on standard output.
        let code = exitCode(for: error)
        if code == .success {
            let text = fullMessage(for: error)
            if !text.isEmpty { print(text) }
            Terminal.end(0)
        }
        if error is ValidationError || error is ExitCode {
            let text = fullMessage(for: error)
            if !text.isEmpty { complain(AgentError(.badRequest, message(for: error)), text + "\n") }
            Terminal.end(error is ExitCode ? code.rawValue : ExitStatus.usage.rawValue)
        }
        let error = AgentError(error)
        complain(error, "apus: \(error.message)\n" + (error.advice.map { "      \($0)\n" } ?? ""))
        Terminal.end(ExitStatus(error.code).rawValue)
    }

    /// Says what is wrong: to a person on standard error, to a program that asked for JSON on standard output.
    nonisolated private static func complain(_ error: AgentError, _ text: String) {
        if CommandLine.arguments.contains("--json") { print(json(["error": error])) } else { Terminal.say(text) }
    }
}

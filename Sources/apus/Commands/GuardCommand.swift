import Agent
import ArgumentParser
import Glibc

/// Started by an agent beside a migration, never by hand.
struct GuardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "guard", abstract: "Watch a migration's agent.", shouldDisplay: false)

    @Argument(parsing: .captureForPassthrough) var arguments: [String] = []

    func run() throws {
        Crash.endsAtOnce()
        guard let guardian = AgentParts.standard.guardian else {
            throw AgentError(.refused, "this build of apus has no guard")
        }
        throw ExitCode(try guardian(arguments))
    }
}

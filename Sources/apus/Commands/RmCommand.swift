import Agent
import ArgumentParser

struct RmCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove a container that has stopped, with its log.")

    @OptionGroup var host: HostOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The container's name.") var name: String
    @Flag(name: .shortAndLong, help: "Kill it first if it runs.")
    var force = false

    func run() async throws {
        try await host.client().remove(name, force: force)
        if output.json { print(Apus.done) }
    }
}

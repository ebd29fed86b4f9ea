import Agent
import ArgumentParser

struct HandoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "handover", abstract: "Trigger the handover of a migration that waits for it.")

    @OptionGroup var host: HostOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The container's name.") var name: String

    func run() async throws {
        let client = try host.client()
        let info = try await client.handOver(try await client.migration(of: name).id)
        print(output.json ? json(info) : "handover of \(name) triggered")
    }
}

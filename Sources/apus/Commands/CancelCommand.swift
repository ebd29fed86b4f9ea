import Agent
import ArgumentParser

struct CancelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "Cancel a migration and wait for its end.",
        discussion:
            "Until the source has promised not to run, the container runs on there; afterwards the migration goes on.")

    @OptionGroup var host: HostOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The container's name.") var name: String

    func run() async throws {
        let client = try host.client()
        let id = try await client.migration(of: name).id
        try await client.cancel(id)
        let end = try await client.wait(for: id)
        if output.json { print(json(end)) }
        switch end.error?.code {
        case .cancelled?: if !output.json { print("migration of \(name) cancelled; it runs on where it was") }
        case nil where end.isOver:
            if !output.json { print("too late: \(name) has moved") }
            throw ExitStatus.refused
        case nil: throw Doubt(end, on: try await client.host()).error
        case _?: throw end.error!
        }
    }
}

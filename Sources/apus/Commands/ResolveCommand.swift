import Agent
import ArgumentParser
import Migration

struct ResolveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resolve", abstract: "End a migration that is in doubt.",
        discussion: """
            A migration is in doubt when the connection was lost between the source's promise not to run and the \
            destination's word that it runs. Only you can find out whether the copy on the other host lives.

            --keep source lets the source's copy run and ends the destination's, --keep destination the reverse. Say the \
            same on both hosts. DANGER: keeping a copy on one host while the other's runs makes two of them, with one \
            address and diverging data; ending both loses the container. If the other host is reachable, bring its agent \
            back instead: the two then settle it without you.
            """)

    @OptionGroup var host: HostOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The container's name.") var name: String
    @Option(help: "Whose copy lives.")
    var keep: MigrationControl.Resolution

    func run() async throws {
        let client = try host.client()
        let info = try await client.resolve(try await client.migration(of: name).id, keep: keep)
        print(output.json ? json(info) : "migration \(info.id) of \(name): the \(keep.rawValue)'s copy lives")
    }
}

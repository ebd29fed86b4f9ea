import Agent
import ArgumentParser
import Migration

struct ResolveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resolve", abstract: "End a migration that is in doubt.",
        discussion: """
            A migration is in doubt when the source has promised not to run, and nobody can tell it whether the \
            destination's copy runs. Nothing runs at the source meanwhile, however long it takes.

            First bring the other host's agent back, if you can: the two then settle it without you. Only if that host \
            is lost, find out whether the copy at the destination runs; `apus ps` prints the command that shows it. \
            Then say the same on both hosts, on one that is down after its agent's next start: --keep source lets the \
            source's copy run and ends the destination's, --keep destination the reverse.

            DANGER: keeping the source's copy while the destination's runs makes two of them, with one address and \
            diverging data; keeping the destination's while it is dead loses the container.
            """)

    @OptionGroup var host: HostOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The container's name.") var name: String
    @Option(help: "Whose copy lives.")
    var keep: MigrationControl.Resolution

    func run() async throws {
        let client = try host.client()
        let info = try await client.resolve(try await client.migration(of: name).id, keep: keep)
        let other = info.peer
        print(
            output.json
                ? json(info)
                : "migration \(info.id) of \(name): the \(keep.rawValue)'s copy lives; "
                    + "should \(other) be in doubt too, say the same there: `apus resolve \(name) --keep \(keep.rawValue)`"
        )
    }
}

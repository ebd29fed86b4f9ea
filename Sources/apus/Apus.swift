import ArgumentParser

@main
struct Apus: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus",
        abstract: "Live-migrates running containers between Linux hosts.",
        subcommands: [TestbedCommand.self, DemoCommand.self])
}

import ArgumentParser
import Testbed

/// Started by a testbed with emulated links, never by hand.
struct LinkCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "link", abstract: "Move the frames of a testbed's links.", shouldDisplay: false)

    @Argument(help: "Where links.json is.") var folder: String

    func run() throws { try LinkServer(folder: folder).run() }
}

import ArgumentParser
import Testbed

/// What a testbed of real machines calls at each of them by ssh, never by hand.
struct MachineCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "machine", abstract: "Be an edge host of a testbed.", shouldDisplay: false)

    @Argument var verb: MachineOrder.Verb
    @Argument var order: String

    func run() async throws { print(try await MachineOrder.carryOut(verb, order)) }
}

extension MachineOrder.Verb: ExpressibleByArgument {}

import ArgumentParser
import Testbed

struct TestbedCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "testbed",
        abstract: "Two edge hosts and a user device on this machine, as network namespaces.",
        subcommands: [Up.self, Status.self, Down.self])

    struct Instance: ParsableArguments {
        @Option(help: "Name of the testbed; its namespaces are then called NAME-edge-a and so on.")
        var instance = Topology.defaultInstance
        @Flag(help: "Print JSON.")
        var json = false
    }

    struct Up: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make the namespaces and links and start the agents.")
        @OptionGroup var instance: Instance
        @Option(help: "Rate of the backhaul each way: 1gbit, 100mbit, unlimited ...")
        var backhaul = "1gbit"
        @Flag(help: "Make the network only.")
        var noAgents = false

        func run() async throws {
            guard let rate = LinkRate(backhaul) else {
                throw ValidationError("--backhaul \(backhaul): not a rate; try 1gbit, 100mbit or unlimited")
            }
            let testbed = Testbed(try Topology(instance: instance.instance, backhaul: rate))
            try testbed.upNetwork()
            if !noAgents { try await testbed.startAgents() }
            try TestbedCommand.show(testbed, json: instance.json)
        }
    }

    struct Status: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show what stands, and check that it works.")
        @OptionGroup var instance: Instance
        func run() async throws {
            try TestbedCommand.show(Testbed(try Topology(instance: instance.instance)), json: instance.json)
        }
    }

    struct Down: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove everything of a testbed, what a crash left behind too.")
        @OptionGroup var instance: Instance
        func run() async throws {
            let testbed = Testbed(try Topology(instance: instance.instance))
            testbed.down()
            let left = testbed.leftovers()
            guard left.isEmpty else { throw TestbedError("could not be removed: \(left.joined(separator: ", "))") }
            if instance.json { print(Apus.done) } else { print("testbed \(instance.instance) is down") }
        }
    }

    static func show(_ testbed: Testbed, json: Bool) throws {
        let status = try testbed.status()
        if json {
            print(try status.json())
        } else {
            print(testbed.text(status))
        }
        guard status.stage != "up" || status.checks.allSatisfy(\.passed) else { throw ExitCode(1) }
    }
}

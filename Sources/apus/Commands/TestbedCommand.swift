import ArgumentParser
import Testbed

struct TestbedCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "testbed",
        abstract:
            "Edge hosts, access points and users on this machine, as network namespaces; or hosts that are real machines.",
        subcommands: [Up.self, Status.self, TestbedLinkCommand.self, Connect.self, Down.self])

    struct Instance: ParsableArguments {
        @Option(help: "Name of the testbed; its namespaces are then called NAME-edge-a and so on.")
        var instance = Topology.defaultInstance
        @Flag(help: "Print JSON.")
        var json = false
    }

    struct Up: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make the namespaces and links of a topology and start the agents.",
            discussion: "Of a testbed that stands, it starts again the agents that have died.")
        @Argument(
            help: ArgumentHelp(
                "The topology (YAML). Default: two edge hosts and a user device.", valueName: "file"),
            completion: .file(extensions: ["yaml", "yml"]))
        var file: String?
        @OptionGroup var instance: Instance
        @Option(help: "Rate of the backhaul each way, without a file: 1gbit, 100mbit, unlimited ... Default: 1gbit.")
        var backhaul: String?
        @Flag(help: "Make the network only.")
        var noAgents = false

        func run() async throws {
            let testbed = Testbed(try topology())
            if noAgents {
                try testbed.upNetwork()
            } else if try await testbed.revive().isEmpty {
                try testbed.upNetwork()
                try await testbed.startAgents()
            }
            try TestbedCommand.show(testbed, json: instance.json)
        }

        private func topology() throws -> Topology {
            if let file {
                guard backhaul == nil else { throw ValidationError("--backhaul: the file says what the links do") }
                return try Topology(file: file, instance: instance.instance)
            }
            let text = backhaul ?? "1gbit"
            guard let rate = LinkRate(text) else {
                throw ValidationError("--backhaul \(text): not a rate; try 1gbit, 100mbit or unlimited")
            }
            return try Topology(instance: instance.instance, backhaul: rate)
        }
    }

    struct Status: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show what stands, and check that it works.")
        @OptionGroup var instance: Instance
        func run() async throws {
            try TestbedCommand.show(Testbed(standing: instance.instance), json: instance.json)
        }
    }

    struct Connect: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Connect again to agents of real machines where the connection has ended.")
        @OptionGroup var instance: Instance
        func run() async throws {
            let hosts = try await Testbed(standing: instance.instance).reconnect()
            if instance.json {
                print(json(["hosts": hosts]))
            } else {
                print(hosts.isEmpty ? "every connection stands" : "connected to \(hosts.joined(separator: ", "))")
            }
        }
    }

    struct Down: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove everything of a testbed, what a crash left behind too.")
        @OptionGroup var instance: Instance
        @Flag(help: "Leave real machines as they are and forget them: for those that cannot be reached any more.")
        var forgetMachines = false
        func run() async throws {
            let testbed = try Testbed(standing: instance.instance)
            testbed.down(machines: !forgetMachines)
            let left = testbed.leftovers(machines: !forgetMachines)
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

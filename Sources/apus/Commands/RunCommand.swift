import Agent
import ArgumentParser
import Glibc

struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Start a container from an OCI bundle.",
        discussion: """
            The container gets a copy of the bundle's root file system. Output goes to a log: `apus logs NAME`. If the \
            program ends within a tenth of a second, `apus run` says how, and ends with the same exit status (128 and \
            the signal's number if a signal ended it); later `apus ps` tells.
            """)

    @OptionGroup var host: HostOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The container's name.") var name: String
    @Argument(help: "The bundle's folder, with config.json, on the agent's machine.") var bundle: String
    @Option(
        help: ArgumentHelp(
            "An address of its own network, with prefix length; may be repeated.", valueName: "address/length"))
    var address: [String] = []
    @Option(help: "The network's link-layer address. Default: a random one.")
    var mac: String?
    @Option(help: "The network's default gateway.")
    var gateway: String?

    func validate() throws {
        if address.isEmpty && (mac != nil || gateway != nil) {
            throw ValidationError("--mac and --gateway need --address")
        }
    }

    func run() async throws {
        let path: String
        if let resolved = realpath(bundle, nil) {
            path = String(cString: resolved)
            free(resolved)
        } else if bundle.hasPrefix("/") {
            // The agent may be another machine's.
            path = bundle
        } else {
            throw AgentError(.badRequest, "there is no bundle at \(bundle)", advice: "`runc spec` makes a config.json")
        }
        let network = address.isEmpty ? nil : RunRequest.Network(mac: mac, addresses: address, gateway: gateway)
        let info = try await host.client().run(RunRequest(name: name, bundle: path, network: network))
        if output.json { print(json(info)) }
        guard info.pid == 0 else {
            if !output.json { print("container \(name) runs as pid \(info.pid)") }
            return
        }
        var exit = info.record.exit
        // It may have ended just now.
        for _ in 0..<10 where exit == nil {
            try await Task.sleep(for: .milliseconds(100))
            exit = try await host.client().container(name).record.exit
        }
        guard let exit else {
            if !output.json {
                print(
                    "container \(name) goes on without its first thread: runc takes it for stopped, and it cannot be moved"
                )
            }
            return
        }
        if !output.json { print("container \(name) has ended: \(exit.words); `apus logs \(name)`") }
        throw ExitCode(exit.status ?? exit.signal.map { 128 + $0 } ?? ExitStatus.failed.rawValue)
    }
}

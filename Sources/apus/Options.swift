// What several commands have in common.
import Agent
import ArgumentParser
import FoundationEssentials
import Glibc
import LinuxKernel
import Migration

/// `--json`.
struct OutputOptions: ParsableArguments {
    @Flag(help: "Answer in JSON.")
    var json = false
}

/// `--host`: which agent of this machine.
struct HostOptions: ParsableArguments {
    @Option(help: "The host whose agent is asked; also APUS_HOST. Not needed where one agent runs.")
    var host: String?

    var chosen: String? { host ?? Self.environment }
    static var environment: String? {
        getenv("APUS_HOST").map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
    }

    /// The one agent that is meant.
    func client() throws(AgentError) -> AgentClient {
        if let chosen { return AgentClient(host: chosen) }
        let running = AgentClient.runningHosts()
        if running.count == 1 { return AgentClient(host: running[0]) }
        if running.isEmpty {
            throw AgentError(
                .agentNotRunning, "no agent runs on this machine", advice: "start one: `apus agent --host NAME`")
        }
        throw AgentError(
            .badRequest, "several agents run on this machine",
            advice: "choose one with --host: \(running.joined(separator: ", "))")
    }

    /// Hosts that are meant: the chosen one, else all that run.
    func hosts() throws(AgentError) -> [String] {
        if let chosen { return [chosen] }
        let running = AgentClient.runningHosts()
        if running.isEmpty {
            throw AgentError(
                .agentNotRunning, "no agent runs on this machine", advice: "start one: `apus agent --host NAME`")
        }
        return running
    }
}

extension Apus {
    /// What a command answers in JSON that has nothing to tell.
    static var done: String { json(["ok": true]) }
}

/// JSON for other programs: keys sorted, indented.
func json(_ value: some Encodable) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
    // All that is printed is made of strings, numbers, arrays and objects.
    return String(decoding: try! encoder.encode(value), as: UTF8.self)
}

extension AgentClient {
    /// The running migration of a container.
    func migration(of container: String) async throws(AgentError) -> MigrationInfo {
        let all = try await migrations()
        guard let found = all.last(where: { $0.container == container && !$0.isOver }) else {
            throw AgentError(
                .migrationUnknown, "container \(container) is not being migrated", advice: "`apus ps` shows what is")
        }
        return found
    }
}

extension Technique: ExpressibleByArgument {
    public init?(argument: String) { self.init(name: argument) }
}
extension HandoverPolicy: ExpressibleByArgument {}
extension EventSource: ExpressibleByArgument {}
extension TechniquePreset: ExpressibleByArgument {}
extension Acceptance: ExpressibleByArgument {}
extension PeerAddress: ExpressibleByArgument {
    public init?(argument: String) { self.init(argument) }
}
extension MigrationControl.Resolution: ExpressibleByArgument {}

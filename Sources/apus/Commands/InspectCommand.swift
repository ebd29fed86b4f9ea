import Agent
import ArgumentParser
import Engine
import Testbed

struct InspectCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show what a container holds, and what of it could not be carried.",
        discussion: "With --pid no agent is needed. Exit status 4 if something could not be carried.")

    @OptionGroup var host: HostOptions
    @OptionGroup var output: OutputOptions
    @Argument(help: "The container's name.") var name: String?
    @Option(help: "A process of this machine, with its children, instead of a container.")
    var pid: Int32?

    func validate() throws {
        if (name == nil) == (pid == nil) { throw ValidationError("give a container's name or --pid, one of them") }
        if let pid, pid < 1 { throw ValidationError("no PID: \(pid)") }
    }

    func run() async throws {
        let report: InspectReport
        if let name {
            report = try await host.client().inspect(name)
        } else {
            guard let inspector = AgentParts.standard.inspector else {
                throw AgentError(.refused, "this build of apus cannot inspect yet")
            }
            report = try inspector.inspect(pid: pid!)
        }
        print(output.json ? json(report) : Self.text(report))
        if !report.obstacles.isEmpty { throw ExitStatus.refused }
    }

    static func text(_ report: InspectReport) -> String {
        var processes = TextTable([
            .init("PID", .right), .init("INNER", .right), .init("PARENT", .right), .init("NAME"),
            .init("THREADS", .right),
            .init("DESCRIPTORS", .right), .init("RESIDENT", .right),
        ])
        var memory = TextTable([
            .init("PID", .right), .init("MEMORY"), .init("AREAS", .right), .init("SIZE", .right),
            .init("RESIDENT", .right),
        ])
        var descriptors = TextTable([.init("PID", .right), .init("FD", .right), .init("KIND"), .init("DETAIL")])
        for process in report.processes {
            let pid = String(process.pid)
            processes.add([
                pid, String(process.innerPid), String(process.parent), process.name, String(process.threads.count),
                String(process.descriptors.count), Human.bytes(process.memory.reduce(0) { $0 + $1.resident }),
            ])
            for kind in process.memory {
                memory.add([pid, kind.kind, String(kind.areas), Human.bytes(kind.size), Human.bytes(kind.resident)])
            }
            for descriptor in process.descriptors {
                descriptors.add([pid, String(descriptor.number), descriptor.kind, descriptor.detail])
            }
        }
        let verdict =
            report.obstacles.isEmpty
            ? "Everything found can be carried."
            : "Cannot be carried:\n" + report.obstacles.map { "  " + $0.sentence }.joined(separator: "\n")
        return [processes.text, memory.text, descriptors.text, verdict].joined(separator: "\n\n")
    }
}

import Agent
import ArgumentParser
import Testbed

struct PsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ps", abstract: "List containers and migrations.",
        discussion: "Without --host, those of every agent on this machine.")

    @OptionGroup var host: HostOptions
    @OptionGroup var output: OutputOptions
    @Flag(name: .shortAndLong, help: "Migrations that have ended, too.")
    var all = false

    struct HostReport: Encodable {
        var host: String
        var containers: [ContainerInfo]
        var migrations: [MigrationInfo]
    }

    func run() async throws {
        var reports: [HostReport] = []
        for name in try host.hosts() {
            let client = AgentClient(host: name)
            let migrations = try await client.migrations().filter { all || !$0.isOver }
            reports.append(HostReport(host: name, containers: try await client.containers(), migrations: migrations))
        }
        if output.json { return print(json(reports)) }
        print(Self.containers(reports))
        if reports.contains(where: { !$0.migrations.isEmpty }) { print("\n" + Self.migrations(reports)) }
        for report in reports {
            for migration in report.migrations where migration.progress.state == .inDoubt && !migration.isOver {
                print("\n" + Doubt(migration, on: try await AgentClient(host: report.host).host()).text)
            }
        }
    }

    static func containers(_ reports: [HostReport]) -> String {
        var table = TextTable([
            .init("HOST"), .init("CONTAINER"), .init("STATUS"), .init("PID", .right), .init("ADDRESSES"), .init("FROM"),
            .init("SINCE"), .init("COMMAND"),
        ])
        for report in reports {
            for container in report.containers {
                let record = container.record
                table.add([
                    report.host, record.name,
                    container.status + (container.migration == nil ? "" : ", migrating")
                        + (record.exit.map { ", \($0.words)" } ?? ""),
                    container.pid > 0 ? String(container.pid) : "",
                    record.network?.addresses.joined(separator: ",") ?? "", record.origin ?? "", record.since,
                    String(record.arguments.joined(separator: " ").prefix(40)),
                ])
            }
        }
        return table.text
    }

    static func migrations(_ reports: [HostReport]) -> String {
        var table = TextTable([
            .init("HOST"), .init("MIGRATION"), .init("CONTAINER"), .init("DIRECTION"), .init("PEER"),
            .init("TECHNIQUE"),
            .init("STATE"),
        ])
        for report in reports {
            for migration in report.migrations {
                let state =
                    migration.error.map { "\($0.code.rawValue): \($0.message)" }
                    ?? (migration.isOver ? "done" : ProgressLine.text(migration))
                table.add([
                    report.host, migration.id, migration.container, migration.direction.rawValue, migration.peer,
                    migration.plan.technique.rawValue, state,
                ])
            }
        }
        return table.text
    }
}

// `apus logs --follow` reads on through moves: no line is missing, none comes twice.
import Agent
import Containers
import Foundation
import Glibc
import LinuxKernel
import Migration
import Testing

@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(3)))
struct LogTests {
    @Test func aFollowedLogIsWholeThroughMoves() async throws {
        let hosts = try FaultHosts()
        defer { hosts.tearDown() }
        try await hosts.a.start()
        try await hosts.b.start()
        let path = "\(workloads)/holder"
        try BundleBuilder(programs: [path], arguments: [path, "lines"]).build(in: "\(hosts.folder)/bundle")
        _ = try await hosts.a.client.run(RunRequest(name: hosts.container, bundle: "\(hosts.folder)/bundle"))

        let file = "\(hosts.folder)/followed"
        let output = try FileDescriptor(opening: file, O_WRONLY | O_CREAT | O_APPEND, mode: 0o644)
        try await Task.sleep(for: .milliseconds(200))
        let reader = try ChildProcess(
            program, ["logs", "--follow", "--host", hosts.a.name, hosts.container], output: output, diesWithParent: true
        )
        defer { reader.stop(grace: 0) }
        func last() throws -> Int { Int(try SmallFile.text(file).split(separator: "\n").dropLast().last ?? "") ?? 0 }

        for hop in 0..<6 {
            let (from, to) = hop % 2 == 0 ? (hosts.a, hosts.b) : (hosts.b, hosts.a)
            let plan = MigrationPlan(technique: Technique.allCases[hop % 3])
            let id = try await from.client.migrate(hosts.container, to: to.address.description, plan: plan)
            let end = try await from.client.wait(for: id) { _ in }
            #expect(end.error == nil, "move \(hop)")
            // Lines that were written there arrive here.
            let now = try last()
            for _ in 0..<1000 {
                if try last() >= now + 500 { break }
                try await Task.sleep(for: .milliseconds(20))
            }
            #expect(try last() >= now + 500, "move \(hop): the reader stands still")
        }
        let lines = try SmallFile.text(file).split(separator: "\n").dropLast().map { Int($0) }
        #expect(
            lines == Array(0..<lines.count).map { $0 },
            "first difference at line \(zip(lines, 0...).first { $0 != $1 }?.1 ?? -1)")
    }
}

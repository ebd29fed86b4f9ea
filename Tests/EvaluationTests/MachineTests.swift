// Testbeds whose hosts are machines of their own: made, looked at, used and removed by ssh.
import Foundation
import GRDB
import LinuxKernel
import Testbed
import Testing

@testable import Evaluation

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(5)))
struct MachineTests {
    private let program: String
    init() throws { program = try #require(try BuiltProgram.path(), "the apus program stands beside the tests") }

    /// How a command of ours ended on the users' machine, and what it said.
    private func apus(_ bed: MachineBed, _ arguments: String...) throws -> (succeeded: Bool, words: String) {
        let network = try bed.ue.open()
        do {
            let result = try Subprocess.run(
                [program] + arguments, networkNamespace: network.number, timeLimit: .seconds(120))
            return (true, result.text)
        } catch {
            guard case .exited = error.reason else { throw error }
            return (false, error.words)
        }
    }

    private func end(_ bed: MachineBed) {
        _ = try? apus(bed, "testbed", "down", "--instance", "lab-test", "--forget-machines")
        bed.end()
    }

    private func status(_ bed: MachineBed) throws -> Testbed.Status {
        let network = try bed.ue.open()
        // A check that failed makes the command fail: what it printed counts.
        let output = "\(bed.folder)/status.json"
        _ = try? Subprocess.run(
            ["sh", "-c", "exec \(program) testbed status --instance lab-test --json > \(output)"],
            networkNamespace: network.number)
        return try JSONDecoder().decode(Testbed.Status.self, from: Data(contentsOf: URL(filePath: output)))
    }

    @Test func stands() throws {
        let bed = try MachineBed(clocks: [0, 0], program: program)
        defer { end(bed) }
        let up = try apus(bed, "testbed", "up", bed.topology, "--instance", "lab-test")
        try #require(up.succeeded, "\(up.words)")
        var now = try status(bed)
        #expect(now.stage == "up" && now.agents.map(\.host) == ["lab-test-edge-1", "lab-test-edge-2"])
        #expect(now.agents.allSatisfy(\.running) && now.checks.count == 4)
        for check in now.checks { #expect(check.passed, "\(check.name): \(check.detail)") }
        // Commands of the users' machine reach the agents.
        let host = try apus(bed, "ps", "--host", "lab-test-edge-2", "--json")
        #expect(host.succeeded && host.words.contains("lab-test-edge-2"), "\(host.words)")

        // A connection that ends is noticed, and can be had again.
        kill(try #require(now.agents[0].pid), SIGKILL)
        usleep(200_000)
        now = try status(bed)
        #expect(now.agents.map(\.running) == [false, true] && now.checks.allSatisfy(\.passed))
        let connected = try apus(bed, "testbed", "connect", "--instance", "lab-test")
        #expect(connected.words.contains("connected to lab-test-edge-1"), "\(connected.words)")
        #expect(try apus(bed, "ps", "--host", "lab-test-edge-1").succeeded)
        #expect(try status(bed).agents.allSatisfy(\.running))

        // Another testbed of that name finds the machines taken, and takes nothing from them.
        let record = "/run/apus/testbed-lab-test.json"
        try FileManager.default.moveItem(atPath: record, toPath: record + ".aside")
        let second = try apus(bed, "testbed", "up", bed.topology, "--instance", "lab-test")
        #expect(!second.succeeded && second.words.contains("edge-2: there is"), "\(second.words)")
        try FileManager.default.moveItem(atPath: record + ".aside", toPath: record)
        #expect(try status(bed).checks.allSatisfy(\.passed))

        // An agent that dies is noticed.
        let agent = try bed.machines[1].processes().first {
            (try? SmallFile.text("/proc/\($0)/cmdline"))?.contains("agent\0--host") == true
        }
        kill(try #require(agent), SIGKILL)
        usleep(200_000)
        let failed = try status(bed).checks.filter { !$0.passed }
        #expect(failed.contains { $0.detail.contains("its agent has ended") })
        #expect(failed.contains { $0.name == "from lab-test-edge-1 to lab-test-edge-2" })

        let down = try apus(bed, "testbed", "down", "--instance", "lab-test")
        #expect(down.succeeded, "\(down.words)")
        for machine in bed.machines {
            #expect(try machine.contents() == [])
            #expect(try machine.strays() == [])
        }
        #expect(!FileManager.default.fileExists(atPath: record))
        #expect(!FileManager.default.fileExists(atPath: "/run/apus/lab-test-edge-1"))
    }

    /// What cannot be used is refused as a whole, by name, and nothing is made anywhere.
    @Test func refusesByName() throws {
        let bed = try MachineBed(clocks: [0, 0], program: program)
        defer { end(bed) }
        try bed.machines[1].run(["ip", "link", "del", "br0"])
        let text = try String(contentsOfFile: bed.topology, encoding: .utf8)
        try bed.write(
            "lab.yaml",
            text + "  edge-3: {address: 10.78.0.3, ssh: machine-1, apus: \(program)}\n"
                + "  edge-4: {address: 10.78.0.4, ssh: machine-2, apus: /no/apus}\n  edge-5: {address: 10.78.0.5, ssh: nobody.invalid}\n"
        )
        let up = try apus(bed, "testbed", "up", bed.topology, "--instance", "lab-test")
        #expect(!up.succeeded)
        for words in [
            "lab-test-edge-2: it has no bridge br0", "lab-test-edge-3 is the same machine as lab-test-edge-1",
            "lab-test-edge-4: machine-2 (by ssh)", "/no/apus", "lab-test-edge-5: nobody.invalid (by ssh)",
        ] { #expect(up.words.contains(words), "\(words) in \(up.words)") }
        for machine in bed.machines { #expect(try machine.contents() == []) }
        #expect(!FileManager.default.fileExists(atPath: "/run/apus/testbed-lab-test.json"))
    }

    /// A machine that is off when the testbed goes is named, and remembered until it is forgotten by order.
    @Test func remembersMachinesThatAreOff() throws {
        let bed = try MachineBed(clocks: [0, 0], program: program)
        defer { end(bed) }
        let up = try apus(bed, "testbed", "up", bed.topology, "--instance", "lab-test")
        try #require(up.succeeded, "\(up.words)")
        bed.machines[1].turnOff()
        var down = try apus(bed, "testbed", "down", "--instance", "lab-test")
        #expect(!down.succeeded && down.words.contains("lab-test-edge-2 cannot be asked"), "\(down.words)")
        #expect(try bed.machines[0].contents() == [] && bed.machines[0].strays() == [])
        #expect(FileManager.default.fileExists(atPath: "/run/apus/testbed-lab-test.json"))
        down = try apus(bed, "testbed", "down", "--instance", "lab-test", "--forget-machines")
        #expect(down.succeeded, "\(down.words)")
        #expect(!FileManager.default.fileExists(atPath: "/run/apus/testbed-lab-test.json"))
    }

    /// An evaluation on machines: real services, clients on the users' machine, every verdict; nothing stays.
    @Test func servesAnEvaluation() throws {
        let bed = try MachineBed(clocks: [0, 0], program: program)
        defer { end(bed) }
        try bed.write(
            "plan.yaml",
            """
            name: lab
            title: On machines
            topology: \(bed.topology)
            repetitions: 1
            techniques: [migrror, criu-cold]
            base: {memory: 16MiB, bandwidth: 1gbit}
            experiments:
              - name: services
                vary: {workload: [dirtier, redis, vehicular]}
            """)
        let results = bed.folder + "/results.sqlite"
        let run = try apus(
            bed, "evaluate", "run", bed.folder + "/plan.yaml", "--results", results, "--instance", "lab-test")
        #expect(run.succeeded, "\(run.words)")
        #expect(run.words.contains("left out: criu-cold: made between hosts of one machine only"))
        let rows = try ResultStore(results).database.read { db in
            try Row.fetchAll(db, sql: "SELECT p.workload, r.* FROM run r JOIN point p ON p.id = r.point")
        }
        #expect(rows.count == 3)
        for row in rows {
            let workload: String = row["workload"]
            #expect(row["passed"] as Bool)
            // Instants of three machines' clocks are compared here: a client that saw nothing would tell.
            let (engine, inside) = (row["engine_downtime_ms"] as Double, row["workload_downtime_ms"] as Double?)
            #expect(try abs(#require(inside) - engine) < 5, "\(workload): \(inside ?? -1) and \(engine) ms")
            #expect(workload == "dirtier" || row["client_downtime_ms"] as Double? != nil)
            #expect(row["source_cpu_s"] as Double > 0)
        }
        let page = try EvaluationReport(ResultStore(results)).page().html
        #expect(page.contains("What these machines cannot say") && !page.contains("What this machine cannot say"))
        #expect(page.contains("lab-test-edge-2: "))
        for machine in bed.machines {
            #expect(try machine.contents() == [])
            #expect(try machine.strays() == [])
        }
        // What machines cannot be asked for.
        try bed.write(
            "plan.yaml",
            "name: lab\ntopology: \(bed.topology)\nexperiments:\n  - {name: far, vary: {rtt: [0, 10]}}\n")
        let refused = try apus(bed, "evaluate", "run", bed.folder + "/plan.yaml", "--results", results)
        #expect(!refused.succeeded && refused.words.contains("whose links are left alone"), "\(refused.words)")
    }
}

// Testbeds whose hosts are machines of their own: made, looked at, used and removed by ssh.
import Containers
import Foundation
import GRDB
import LinuxKernel
import Testing

@testable import Evaluation
@testable import Testbed

@Suite(.serialized, .enabled(if: geteuid() == 0), .timeLimit(.minutes(5)))
struct MachineTests {
    private let program: String
    init() throws { program = try #require(try BuiltProgram.path(), "the apus program stands beside the tests") }

    /// How a command of ours ended on the users' machine, and what it said.
    private func apus(_ bed: MachineBed, _ arguments: String...) throws -> (succeeded: Bool, words: String) {
        try apus(bed, arguments)
    }
    private func apus(_ bed: MachineBed, _ arguments: [String]) throws -> (succeeded: Bool, words: String) {
        let network = try bed.ue.open()
        let path = "\(bed.folder)/output"
        let output = try FileDescriptor(opening: path, O_RDWR | O_CREAT | O_TRUNC)
        var succeeded = true
        do {
            try Subprocess.run(
                [program] + arguments, output: .descriptor(output.number), errors: .descriptor(output.number),
                networkNamespace: network.number, timeLimit: .seconds(120))
        } catch {
            guard case .exited = error.reason else { throw error }
            succeeded = false
        }
        return (succeeded, try String(contentsOfFile: path, encoding: .utf8))
    }

    private func end(_ bed: MachineBed) {
        for option in [[], ["--forget-machines"]] {
            _ = try? apus(bed, ["testbed", "down", "--instance", "lab-test"] + option)
        }
        bed.end()
        // They share this kernel: what a failed test left in cgroups goes as from a testbed of this machine.
        if let plain = try? Topology(yaml: "hosts: [edge-1, edge-2]", file: "", instance: "lab-test") {
            Testbed(plain).down()
        }
    }

    private func isAgent(_ pid: Int32) throws -> Bool {
        try SmallFile.text("/proc/\(pid)/cmdline").contains("agent\0--host")
    }

    private func dirtierBundle(_ bed: MachineBed) throws -> String {
        let bundle = bed.folder + "/bundle"
        try FileManager.default.createDirectory(atPath: bundle, withIntermediateDirectories: true)
        let builder = BundleBuilder(
            programs: [], arguments: ["/bin/dirtier", "--memory", "8388608", "--rate", "1000", "--threads", "1"])
        try builder.build(in: bundle)
        try FileManager.default.copyItem(atPath: ".build/workloads/dirtier", toPath: bundle + "/rootfs/bin/dirtier")
        return bundle
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

        // What a machine shouts into its network does not come back by another machine: switches would look for it
        // there. Nobody has the address, so the ping fails.
        let links = try bed.machines[0].run(["ip", "-br", "link"])
        let tunnel = try #require(links.firstMatch(of: #/apus[0-9a-f]{4}-2/#)).output
        #expect(throws: SubprocessError.self) {
            try bed.machines[0].run(["busybox", "ping", "-c", "2", "-W", "1", "10.78.0.77"])
        }
        let counters = try bed.machines[0].run(["ip", "-s", "link", "show", String(tunnel)])
        #expect(counters.contains(#/TX:[^\n]*\n *0 +0 /#), "\(counters)")

        // A container with a network, moved once: its port and the bridge's entries are to go with the testbed.
        let bundle = try dirtierBundle(bed)
        let hosts = ["lab-test-edge-1", "lab-test-edge-2"]
        let run = try apus(bed, "run", "d", bundle, "--host", hosts[0], "--address", "10.78.0.50/24")
        #expect(run.succeeded, "\(run.words)")
        let move = try apus(bed, "migrate", "d", "--host", hosts[0], "--to", hosts[1], "--technique", "migrror")
        #expect(move.succeeded, "\(move.words)")
        #expect(try bed.machines[1].contents().contains { $0.hasPrefix("vd") })

        // A connection that ends is noticed, and can be had again.
        kill(try #require(now.agents[0].pid), SIGKILL)
        _ = try waitUntil(seconds: 10) {
            now = try status(bed)
            return !now.agents[0].running
        }
        #expect(now.agents.map(\.running) == [false, true] && now.checks.allSatisfy(\.passed))
        let connected = try apus(bed, "testbed", "connect", "--instance", "lab-test")
        #expect(connected.words.contains("connected to lab-test-edge-1"), "\(connected.words)")
        #expect(try apus(bed, "ps", "--host", "lab-test-edge-1").succeeded)
        #expect(try status(bed).agents.allSatisfy(\.running))

        // An agent that dies is noticed.
        let agent = try bed.machines[1].processes().first { try isAgent($0) }
        kill(try #require(agent), SIGKILL)
        var failed: [NetworkCheck] = []
        _ = try waitUntil(seconds: 10) {
            failed = try status(bed).checks.filter { !$0.passed }
            return failed.count > 1
        }
        #expect(failed.contains { $0.detail.contains("its agent has ended") })
        #expect(failed.contains { $0.name == "from lab-test-edge-1 to lab-test-edge-2" })

        // `up` starts it again, and it knows its container.
        let again = try apus(bed, "testbed", "up", bed.topology, "--instance", "lab-test")
        #expect(again.succeeded, "\(again.words)")
        #expect(try status(bed).checks.allSatisfy(\.passed))
        let kept = try apus(bed, "ps", "--host", hosts[1])
        #expect(kept.words.contains(#/ d +running/#), "\(kept.words)")
        let twice = try apus(bed, "testbed", "up", bed.topology, "--instance", "lab-test")
        #expect(!twice.succeeded && twice.words.contains("is up"), "\(twice.words)")

        let down = try apus(bed, "testbed", "down", "--instance", "lab-test")
        #expect(down.succeeded, "\(down.words)")
        for machine in bed.machines {
            #expect(try machine.contents() == [])
            #expect(try machine.strays() == [])
            let entries = try machine.run(["bridge", "fdb", "show", "br", "br0"]).split(separator: "\n")
            #expect(!entries.contains { $0.contains("static") || $0.contains("sticky") }, "\(entries)")
        }
        for path in ["/var/lib/apus/testbed-lab-test.json", "/run/apus/lab-test-edge-1"] {
            #expect(!FileManager.default.fileExists(atPath: path))
        }
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
        #expect(!FileManager.default.fileExists(atPath: "/var/lib/apus/testbed-lab-test.json"))
    }

    /// What another testbed made at a machine is not removed by one that only has its name.
    @Test func removesItsOwnOnly() throws {
        let bed = try MachineBed(clocks: [0, 0], program: program)
        defer { end(bed) }
        let up = try apus(bed, "testbed", "up", bed.topology, "--instance", "lab-test")
        try #require(up.succeeded, "\(up.words)")
        // As if it were another users' machine: without a record and connections.
        let record = "/var/lib/apus/testbed-lab-test.json"
        let text = try String(contentsOfFile: record, encoding: .utf8)
        for agent in try status(bed).agents {
            kill(try #require(agent.pid), SIGKILL)
            try FileManager.default.removeItem(atPath: agent.socket)
        }
        try FileManager.default.removeItem(atPath: record)
        func isUntouched() throws -> Bool {
            try bed.machines.allSatisfy { try $0.processes().contains { (try? isAgent($0)) == true } }
        }
        let second = try apus(bed, "testbed", "up", bed.topology, "--instance", "lab-test")
        #expect(!second.succeeded && second.words.contains("edge-2: there is"), "\(second.words)")
        #expect(try isUntouched())
        // Nor does an evaluation that is refused.
        try bed.write(
            "plan.yaml", "name: lab\ntopology: \(bed.topology)\nexperiments:\n  - {name: a, set: {memory: 8MiB}}\n")
        let evaluation = try apus(
            bed, "evaluate", "run", bed.folder + "/plan.yaml", "--results", bed.folder + "/r.sqlite", "--instance",
            "lab-test")
        #expect(!evaluation.succeeded && evaluation.words.contains("edge-2: there is"), "\(evaluation.words)")
        #expect(try isUntouched())
        // Nor does one that takes itself for the one that stands.
        func write(_ text: String) throws {
            try FileManager.default.createDirectory(atPath: "/var/lib/apus", withIntermediateDirectories: true)
            try text.write(toFile: record, atomically: true, encoding: .utf8)
        }
        let token = try #require(text.firstMatch(of: #/"token" : "([0-9a-f]+)"/#)).output.1
        try write(text.replacing(token, with: "f00"))
        let stranger = try apus(bed, "testbed", "down", "--instance", "lab-test")
        #expect(stranger.succeeded && !FileManager.default.fileExists(atPath: record), "\(stranger.words)")
        #expect(try isUntouched())
        // A record that cannot be read is kept: machines are known by nothing else.
        try write("{")
        let unreadable = try apus(bed, "testbed", "down", "--instance", "lab-test")
        #expect(!unreadable.succeeded && unreadable.words.contains(record), "\(unreadable.words)")
        #expect(try isUntouched())
        // As after a new boot of the users' machine.
        try write(text)
        let down = try apus(bed, "testbed", "down", "--instance", "lab-test")
        #expect(down.succeeded, "\(down.words)")
        for machine in bed.machines {
            #expect(try machine.contents() == [] && machine.strays() == [])
        }
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
        #expect(FileManager.default.fileExists(atPath: "/var/lib/apus/testbed-lab-test.json"))
        down = try apus(bed, "testbed", "down", "--instance", "lab-test", "--forget-machines")
        #expect(down.succeeded, "\(down.words)")
        #expect(!FileManager.default.fileExists(atPath: "/var/lib/apus/testbed-lab-test.json"))
    }

    /// A machine has booted at another time: a container's clocks go on wherever it goes, and back.
    @Test func clocksGoOn() throws {
        let ahead = 100_000
        let bed = try MachineBed(clocks: [0, ahead], program: program)
        defer { end(bed) }
        let up = try apus(bed, "testbed", "up", bed.topology, "--instance", "lab-test")
        try #require(up.succeeded, "\(up.words)")
        let bundle = try dirtierBundle(bed)
        let names = ["lab-test-edge-1", "lab-test-edge-2"]
        let run = try apus(bed, "run", "d", bundle, "--host", names[1])
        try #require(run.succeeded, "\(run.words)")
        // What its clocks show besides this kernel's: what they did at the machine where it started.
        func offsets(at host: String) throws -> Clocks {
            let record = try apus(bed, "ps", "--host", host, "--json")
            let list = try JSONSerialization.jsonObject(with: Data(record.words.utf8)) as? [[String: Any]]
            let containers = list?.first?["containers"] as? [[String: Any]]
            return try Clocks.offsets(of: try #require(containers?.first?["pid"] as? Int32, "\(record.words)"))
        }
        var last = try offsets(at: names[1])
        #expect(last == Clocks(monotonic: Int64(ahead) * 1_000_000_000, boottime: Int64(ahead) * 1_000_000_000))
        for (from, to) in [(1, 0), (0, 1), (1, 0)] {
            let move = try apus(bed, "migrate", "d", "--host", names[from], "--to", names[to], "--technique", "migrror")
            #expect(move.succeeded && move.words.contains("clock: estimated"), "\(move.words)")
            let now = try offsets(at: names[to])
            // A round trip on one machine takes microseconds; 50 ms is for a busy one.
            #expect((last.monotonic...last.monotonic + 50_000_000).contains(now.monotonic), "\(last) \(now)")
            #expect((last.boottime...last.boottime + 50_000_000).contains(now.boottime), "\(last) \(now)")
            last = now
        }
        #expect(try apus(bed, "kill", "d", "--host", names[0], "--signal", "USR1").succeeded)
        var log = ""
        for _ in 0..<100 where !log.contains("oracle") {
            usleep(100_000)
            log = try apus(bed, "logs", "d", "--host", names[0]).words
        }
        #expect(log.contains(#""oracle":"ok""#) && log.contains(#""clock_backwards":0"#), "\(log)")
    }

    /// An evaluation on machines whose clocks differ: real services, clients on the users' machine, every verdict;
    /// nothing stays.
    @Test func servesAnEvaluation() throws {
        let bed = try MachineBed(clocks: [0, 100_000], program: program)
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
            try #require(row["passed"] as Bool, "\(row)")
            // Instants of three machines' clocks are compared here: a client that saw nothing would tell.
            let engine: Double = row["engine_downtime_ms"], noticed: Double? = row["workload_downtime_ms"]
            let inside = try #require(noticed, "\(workload)")
            // No less than the engine says; more where the machine is busy, but not the clocks' 100,000 s.
            #expect(inside > engine - 5 && inside < engine + 500, "\(workload): \(inside) and \(engine) ms")
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

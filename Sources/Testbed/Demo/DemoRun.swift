// A testbed made for the demo, and its end in every case.
import Glibc

extension Demo {
    /// A line of progress with the seconds since the start.
    public static func progressLine(_ seconds: Double, _ line: String) -> String {
        "[\(grouped(seconds, digits: 1).padded(6, .right)) s] \(line)"
    }

    /// Makes a testbed with agents, runs the demo on it and takes it down, whatever happens: error, Ctrl-C, SIGTERM.
    ///
    /// - Parameter keep: leave the testbed standing at the ordinary end.
    /// - Throws: when the testbed could not be made; everything later is in the report.
    public static func run(
        _ topology: Topology, _ options: Options, keep: Bool = false, progress: @escaping @Sendable (String) -> Void
    ) async throws -> DemoReport {
        let testbed = Testbed(topology)
        let teardown = try Teardown { testbed.down() }
        do {
            try teardown.making { try testbed.upNetwork(owned: !keep) }
        } catch {
            // Nothing of ours stands; someone else's testbed may.
            teardown.abandon()
            throw error
        }
        progress("network up: \(topology.namespaces.map(\.name).joined(separator: ", "))")
        do {
            let children = try teardown.making { try testbed.spawnAgents() }
            try await testbed.waitForAgents(children)
        } catch {
            teardown.finish()
            throw error
        }
        progress("an agent runs in \(topology.hosts.map(\.name).joined(separator: " and in "))")
        var report = await Demo(
            topology, options, hosts: AgentHosts(), folder: testbed.folder,
            progress: { if !teardown.isEnding { progress($0) } }
        ).run()
        if !report.passed {
            let words = topology.hosts.map { testbed.lastWords($0) }.filter { !$0.isEmpty }
            if !words.isEmpty { report.problems.append("the agents' last words:\n" + words.joined(separator: "\n")) }
        }
        if keep {
            teardown.abandon()
            progress("the testbed stays: `apus testbed status`, `apus testbed down`")
            return report
        }
        teardown.finish()
        let left = testbed.leftovers()
        report.verdicts.append(
            Verdict(
                "nothing left behind", left.isEmpty,
                left.isEmpty ? "no process, namespace, mount, cgroup or folder" : left.joined(separator: ", ")))
        if !left.isEmpty { report.passed = false }
        return report
    }
}

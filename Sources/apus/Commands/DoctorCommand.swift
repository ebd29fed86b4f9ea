import ArgumentParser
import Containers
import LinuxKernel
import Testbed

struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Try what Apus needs of this machine, and tell what is missing.",
        discussion: "Needs no agent. Exit status 8 if something essential is missing.")

    @OptionGroup var output: OutputOptions

    func run() throws {
        let version = try? Runc(root: "/run/apus/doctor").version()
        let probe = KernelProbe(runtime: version.map { "runc \($0)" })
        print(output.json ? json(probe) : Self.text(probe))
        if !probe.canMigrate { throw ExitStatus.incapable }
    }

    static func text(_ probe: KernelProbe) -> String {
        var table = TextTable([.init("CHECK"), .init("STATE"), .init("FOUND")])
        for finding in probe.findings { table.add([finding.name, finding.state.rawValue, finding.found]) }
        var text = table.text + "\n"
        for finding in probe.findings where finding.state != .ok {
            text += "\n\(finding.name): \(finding.why).\n"
            if let advice = finding.advice { text += "  What to do: \(advice).\n" }
        }
        let missing = probe.facts.missing
        return text
            + (missing.isEmpty
                ? "\nContainers can be migrated on this host."
                : "\nNothing can be migrated on this host without: \(missing.joined(separator: ", ")).")
    }
}

// Machines of a laboratory, as real as one kernel allows: each with networks, mounts, /run, /var/lib and a clock of its
// own, and reached by ssh alone, which finds an sshd there.
import Foundation
import LinuxKernel
import Testbed

/// `ue` and machines on one switch. Everything goes with `end`.
final class MachineBed {
    /// From where the testbed is made: the users' machine.
    let ue = NamedNetwork("mb-ue")
    let folder: String
    var topology: String { folder + "/lab.yaml" }
    private(set) var machines: [Machine] = []

    final class Machine {
        let name: String
        fileprivate let process: ChildProcess
        /// Its first process: the way into its namespaces.
        let pid: Int32
        fileprivate init(_ name: String, _ process: ChildProcess, _ pid: Int32) {
            (self.name, self.process, self.pid) = (name, process, pid)
        }
        /// Runs a program there.
        @discardableResult
        func run(_ command: [String]) throws -> String {
            try Subprocess.run(["nsenter", "-t", "\(pid)", "--net", "--mount", "--time", "--"] + command).text
        }
        /// The machine is off: its processes are gone, nobody answers.
        func turnOff() {
            for pid in (try? processes()) ?? [] { kill(pid, SIGKILL) }
            process.stop(grace: 0)
        }
        /// Processes that live in its network and have not ended in ten seconds, but the two that keep it.
        func strays() throws -> [Int32] {
            for _ in 0..<500 where try processes().count > 2 { usleep(20_000) }
            return try processes().filter { $0 != pid && $0 != process.pid }
        }
        func processes() throws -> [Int32] {
            let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/ns/net")
            return try FileManager.default.contentsOfDirectory(atPath: "/proc").compactMap { Int32($0) }.filter {
                (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\($0)/ns/net")) == own
            }
        }
        /// What a testbed may have left there.
        func contents() throws -> [String] {
            let links = try run(["ip", "-br", "link"]).split(separator: "\n").compactMap {
                $0.split(separator: " ").first
            }
            let files = try run(["find", "/run", "/var/lib", "-mindepth", "1"]).split(separator: "\n").map(String.init)
            return links.map(String.init).filter {
                !$0.hasPrefix("lo") && !$0.hasPrefix("br0") && !$0.hasPrefix("eth1")
            }
                + files.filter { !["/run/sshd", "/run/netns", "/run/mount"].contains($0) }
        }
    }

    /// - Parameter clocks: seconds that each machine's monotonic clock is ahead of ours.
    init(clocks: [Int], program: String) throws {
        folder = NSTemporaryDirectory() + "apus-machines-\(getpid())"
        let files = FileManager.default
        try? files.removeItem(atPath: folder)
        try files.createDirectory(atPath: folder, withIntermediateDirectories: true)
        Self.removeNetworks()
        try ip(
            "netns add mb-switch", "netns add mb-ue", "-n mb-switch link add br0 type bridge forward_delay 0",
            "-n mb-switch link set br0 up", "-n mb-switch link add ue type veth peer name eth0 netns mb-ue",
            "-n mb-switch link set ue master br0 up", "-n mb-ue link set lo up", "-n mb-ue link set eth0 up",
            "-n mb-ue addr add 10.78.0.100/24 dev eth0")
        for key in ["user", "host"] {
            try Subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "\(folder)/\(key)"])
        }
        try write(
            "sshd",
            "HostKey \(folder)/host\nAuthorizedKeysFile \(folder)/user.pub\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n"
                + "PidFile none\n")
        var hosts: [String] = [], configuration: [String] = []
        for (index, clock) in clocks.enumerated() {
            let machine = try turnOn("machine-\(index + 1)", number: index + 1, clock: clock)
            machines.append(machine)
            configuration.append(
                """
                Host \(machine.name)
                  User root
                  IdentityFile \(folder)/user
                  UserKnownHostsFile \(folder)/known
                  StrictHostKeyChecking accept-new
                  ProxyCommand nsenter -t \(machine.pid) --net --mount --time -- /usr/sbin/sshd -i -f \(folder)/sshd
                """)
            hosts.append("  edge-\(index + 1): {address: 10.78.0.\(index + 1), ssh: \(machine.name), apus: \(program)}")
        }
        try write("ssh", configuration.joined(separator: "\n") + "\n")
        try write(
            "lab.yaml",
            "name: lab\nssh-config: ssh\ncontainers: 10.78.0.0/24\nhosts:\n\(hosts.joined(separator: "\n"))\n")
    }

    func write(_ name: String, _ text: String) throws {
        try text.write(toFile: "\(folder)/\(name)", atomically: true, encoding: .utf8)
    }

    private func turnOn(_ name: String, number: Int, clock: Int) throws -> Machine {
        let script = """
            mount -t tmpfs none /run && mkdir /run/sshd /run/netns && mount -t tmpfs none /var/lib && echo $$ > \(folder)/\(name).pid && exec sleep 600
            """
        let process = try ChildProcess(
            "unshare",
            [
                "--net", "--mount", "--time", "--monotonic", "\(clock)", "--boottime", "\(clock)", "--fork",
                "--kill-child", "sh", "-c", script,
            ], diesWithParent: true)
        var pid: Int32?
        for _ in 0..<3000 where pid == nil {
            usleep(10_000)
            pid = (try? SmallFile.text("\(folder)/\(name).pid")).flatMap { Int32($0.filter(\.isNumber)) }
        }
        guard let pid else { throw TestFailure("machine \(name) did not start") }
        let machine = Machine(name, process, pid)
        try ip(
            "-n mb-switch link add m\(number) type veth peer name eth1 netns /proc/\(pid)/ns/net",
            "-n mb-switch link set m\(number) master br0 up")
        for line in [
            "link set lo up", "link add br0 type bridge forward_delay 0", "link set eth1 master br0 up",
            "link set br0 up", "addr add 10.78.0.\(number)/24 dev br0",
        ] { try machine.run(["ip"] + line.split(separator: " ").map(String.init)) }
        return machine
    }

    func end() {
        for machine in machines { machine.turnOff() }
        Self.removeNetworks()
        try? FileManager.default.removeItem(atPath: folder)
    }

    private func ip(_ lines: String...) throws {
        for line in lines { try Subprocess.run(["ip"] + line.split(separator: " ").map(String.init)) }
    }
    private static func removeNetworks() {
        for name in ["mb-switch", "mb-ue"] { _ = try? Subprocess.run(["ip", "netns", "del", name]) }
    }
}

struct TestFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

// A real machine that is an edge host, and how a testbed reaches it: OpenSSH, as its user has set it up.
import Glibc
import LinuxKernel
import Migration

/// A machine with `apus`, a runtime and a bridge, which root can reach by ssh(1). Its links are left as they are.
public struct RemoteMachine: Sendable, Hashable, Codable {
    /// Where its agent listens for the other machines' agents.
    public var address: PeerAddress
    /// The destination for ssh(1): an alias of its configuration, "root@192.0.2.1".
    public var ssh: String
    /// A configuration file for ssh(1), absolute; nil: the user's own.
    public var sshConfig: String?
    /// The program there: a path, or a name in the PATH that ssh gives.
    public var program = "apus"
    /// The bridge of its containers, which exists.
    public var bridge = "br0"

    public init(address: PeerAddress, ssh: String? = nil) {
        (self.address, self.ssh) = (address, ssh ?? "root@\(address.host)")
    }

    private var options: [String] {
        // Nobody answers questions; a machine that has gone is noticed after 15 s.
        let fixed = [
            "BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3", "LogLevel=ERROR",
            // A connection that is shared outlives the process that is known here.
            "ControlMaster=no", "ControlPath=none",
        ]
        return (sshConfig.map { ["-F", $0] } ?? []) + ["-T"] + fixed.flatMap { ["-o", $0] }
    }

    /// Runs a program there as root and returns what it printed.
    ///
    /// - Parameter input: a file for its standard input.
    /// - Throws: what ssh or the program said, with the machine.
    @discardableResult
    func run(_ command: [String], input: FileDescriptor? = nil, seconds: Double = 60) throws -> String {
        let line = command.map(Self.quoted).joined(separator: " ")
        do {
            return try Subprocess.run(
                ["ssh"] + options + [ssh, "--", line], input: input?.number, timeLimit: .seconds(seconds)
            ).text
        } catch {
            let words = error.words.isEmpty ? "\(error)" : error.words
            throw TestbedError("\(ssh) (by ssh), \(command.prefix(3).joined(separator: " ")): \(words)")
        }
    }

    /// Starts a connection by which a unix socket there is reached at one here. It outlives this process.
    func forward(_ socket: String, to here: String, log: FileDescriptor) throws -> ChildProcess {
        unlink(here)
        return try ChildProcess(
            "ssh",
            options + [
                "-N", "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindMask=0177", "-L", "\(here):\(socket)",
                ssh,
            ], output: log)
    }

    /// Copies a folder there, to the same path. What stood there before is replaced.
    func bring(_ folder: String) throws {
        let archive = folder + ".tar"
        defer { unlink(archive) }
        try runProgram("tar", ["-C", folder, "-cf", archive, "."], seconds: 600)
        let quoted = Self.quoted(folder)
        try run(
            ["sh", "-c", "rm -rf \(quoted) && mkdir -p \(quoted) && tar -C \(quoted) -xpf -"],
            input: try FileDescriptor(opening: archive, O_RDONLY), seconds: 600)
    }

    /// A word as the shell at the other end takes it for one.
    static func quoted(_ word: String) -> String {
        "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
    }
}

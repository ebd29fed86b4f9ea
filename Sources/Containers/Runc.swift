// runc by its command line.
import CLinux
import Glibc
import LinuxKernel

/// runc with a state folder of its own (`--root`), so that hosts on one machine do not see each other's containers.
///
/// A caller under a real-time scheduling policy cannot use it: real-time tasks may not enter the v1 cpu cgroup.
public struct Runc: ContainerRuntime {
    public let kind = "runc"
    /// The program.
    public let program: String
    /// runc's state folder; runc makes it.
    public let root: String
    /// How long one command may take.
    public var timeLimit: Duration = .seconds(60)

    public init(root: String, program: String = "runc") {
        self.root = root
        self.program = program
    }

    public func version() throws(RuntimeError) -> String {
        let text = try run("asking runc for its version", ["--version"])
        let words = text.split(separator: "\n").first?.split(separator: " ") ?? []
        guard words.count >= 3, words[1] == "version" else {
            throw RuntimeError(operation: "asking runc for its version", words: "not understood: \(text)")
        }
        return String(words[2])
    }

    public func create(_ name: String, bundle: String, log: String) throws(RuntimeError) -> Int32 {
        let operation = "creating container \(name) from \(bundle) with runc"
        do {
            let logFile = try FileDescriptor(opening: log, O_WRONLY | O_APPEND | O_CREAT)
            // runc's words go to memory, under the path that the kernel has for our descriptor: standard error is
            // the container's own.
            let words = FileDescriptor(owning: try check(clx_memfd_create("apus-runc", 1), "creating a memfd"))
            let wordsPath = "/proc/\(getpid())/fd/\(words.number)"
            let pidFile = bundle + "/pid"
            do throws(SubprocessError) {
                try Subprocess.run(
                    [
                        program, "--root", root, "--log", wordsPath, "create", "--bundle", bundle, "--pid-file",
                        pidFile,
                        name,
                    ],
                    environment: environment, output: .descriptor(logFile.number), errors: .descriptor(logFile.number),
                    timeLimit: timeLimit, killsChildren: true)
            } catch {
                if case .timedOut = error.reason { try removeHalfMade(name, bundle: bundle) }
                let said = Runc.messages(try SmallFile.text(wordsPath))
                throw RuntimeError(operation: operation, words: said.isEmpty ? "\(error)" : said)
            }
            let text = try SmallFile.text(pidFile)
            unlink(pidFile)
            guard let pid = Int32(text) else {
                throw RuntimeError(operation: operation, words: "its PID file holds \"\(text)\"")
            }
            // Whatever differs from this later was set while the container ran.
            if let cgroup = try ContainerConfig(bundle: bundle).tree["linux"]?["cgroupsPath"]?.string {
                try RunState.note(pid: pid, cgroup: cgroup, inBundle: bundle)
            }
            return pid
        } catch let error as RuntimeError {
            throw error
        } catch {
            throw RuntimeError(operation: operation, words: "\(error)")
        }
    }

    public func start(_ name: String) throws(RuntimeError) {
        try run("starting container \(name) with runc", ["start", name])
    }

    public func state(_ name: String) throws(RuntimeError) -> ContainerState? {
        let operation = "asking runc for container \(name)"
        do {
            let result = try Subprocess.run(
                [program, "--root", root, "state", name], environment: environment, timeLimit: timeLimit)
            return try parse(JSONValue(json: result.output), operation)
        } catch let error as SubprocessError {
            if error.words.contains("does not exist") { return nil }
            throw RuntimeError(operation: operation, words: Runc.words(of: error))
        } catch let error as RuntimeError {
            throw error
        } catch {
            throw RuntimeError(operation: operation, words: "\(error)")
        }
    }

    public func kill(_ name: String, signal: Int32) throws(RuntimeError) {
        try run("sending signal \(signal) to container \(name) with runc", ["kill", name, String(signal)])
    }

    public func delete(_ name: String, force: Bool) throws(RuntimeError) {
        // `runc delete --force` of an unknown container succeeds, plain `delete` says that it does not exist.
        do throws(RuntimeError) {
            try run("deleting container \(name) with runc", ["delete"] + (force ? ["--force"] : []) + [name])
        } catch {
            if !error.words.contains("does not exist") { throw error }
        }
    }

    public func list() throws(RuntimeError) -> [ContainerState] {
        let operation = "listing runc's containers"
        let text = try run(operation, ["list", "--format", "json"])
        do {
            return try JSONValue(json: Array(text.utf8)).elements.map { try parse($0, operation) }
        } catch {
            throw RuntimeError(operation: operation, words: "\(error)")
        }
    }
}

extension Runc {
    /// runc is given no environment of ours but where to find helpers.
    private var environment: [String: String] {
        ["PATH": Subprocess.ownEnvironment()["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin"]
    }

    /// A runtime that was killed in the middle leaves its first process, which it does not know of yet, in the cgroup.
    private func removeHalfMade(_ name: String, bundle: String) throws {
        let config = try ContainerConfig(bundle: bundle)
        if let cgroup = config.tree["linux"]?["cgroupsPath"]?.string, cgroup.hasPrefix("/"), cgroup.count > 1 {
            try Cgroup.killProcesses(in: cgroup)
            try Cgroup.removeEmpty(cgroup)
        }
        try delete(name, force: true)
    }

    @discardableResult
    func run(_ operation: String, _ arguments: [String]) throws(RuntimeError) -> String {
        do throws(SubprocessError) {
            return try Subprocess.run(
                [program, "--root", root] + arguments, environment: environment, timeLimit: timeLimit
            ).text
        } catch {
            throw RuntimeError(operation: operation, words: Runc.words(of: error))
        }
    }

    private func parse(_ value: JSONValue, _ operation: String) throws(RuntimeError) -> ContainerState {
        guard let name = value["id"]?.string, let pid = value["pid"]?.unsigned,
            let status = value["status"]?.string.flatMap(ContainerState.Status.init(rawValue:))
        else {
            let text = String(decoding: value.json(), as: UTF8.self)
            throw RuntimeError(operation: operation, words: "not understood: \(text)")
        }
        return ContainerState(
            name: name, status: status, pid: Int32(truncatingIfNeeded: pid), bundle: value["bundle"]?.string ?? "")
    }

    /// The runtime's own words without logrus's time stamps, or the whole error when it said nothing.
    private static func words(of error: SubprocessError) -> String {
        if case .exited = error.reason, !error.words.isEmpty { return messages(error.words) }
        return "\(error)"
    }

    /// The messages in logrus lines (`time="..." level=error msg="..."`), other lines as they are.
    static func messages(_ text: String) -> String {
        text.split(separator: "\n").map { line -> String in
            guard let start = line.firstRange(of: "msg=\"")?.upperBound, line.hasSuffix("\""), start < line.endIndex
            else {
                return String(line)
            }
            return String(line[start...].dropLast()).replacing("\\\"", with: "\"")
        }.joined(separator: "; ")
    }
}

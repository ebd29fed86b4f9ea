// What a testbed is about to make or has made: written before each thing, so that a crash leaves nothing unknown.
import FoundationEssentials
import Glibc
import LinuxKernel

/// The record of a standing (or half made) testbed.
public struct TestbedState: Codable, Sendable {
    public struct Agent: Codable, Sendable {
        public var host: String
        /// Of a real machine: the connection to it. nil: it was about to be started.
        public var pid: Int32?
        /// Clock ticks after boot: with the PID it names the process for good.
        public var startTime: UInt64?
        /// The socket of its API.
        public var socket: String
        public var log: String

        var isRunning: Bool { pid.flatMap(ProcessTable.startTime).map { $0 == startTime } ?? false }
    }
    /// A process that takes the testbed down at its end.
    public struct Owner: Codable, Sendable, Equatable {
        public var pid: Int32
        public var startTime: UInt64
        static var here: Owner? { ProcessTable.startTime(getpid()).map { Owner(pid: getpid(), startTime: $0) } }
        public var isAlive: Bool { ProcessTable.startTime(pid) == startTime }
    }
    public enum Stage: String, Codable, Sendable { case building, up, removing }

    public var version = 1
    public var stage = Stage.building
    public var topology: Topology
    public var agents: [Agent] = []
    /// Of real machines: what they know this testbed by. Nobody else's is ended by `down`.
    public var token: String?
    /// nil: it stands until `apus testbed down`.
    public var owner: Owner?

    public static let folder = "/run/apus"
    public static func path(_ instance: String) -> String { "\(folder)/testbed-\(instance).json" }
    /// Real machines run on when this one boots anew, so the record outlives that.
    public static func lastingPath(_ instance: String) -> String { "/var/lib/apus/testbed-\(instance).json" }
    /// Where there is a record.
    static func files(_ instance: String) -> [String] {
        [path(instance), lastingPath(instance)].filter(fileExists)
    }

    public init(topology: Topology) {
        self.topology = topology
        if topology.hasMachines { token = String(UInt64.random(in: 1 << 60...UInt64.max), radix: 16) }
    }

    /// nil: there is none.
    public static func load(instance: String) throws -> TestbedState? {
        guard let path = files(instance).first else { return nil }
        do {
            return try JSONDecoder().decode(TestbedState.self, from: Data(try SmallFile.read(path)))
        } catch {
            throw TestbedError("\(path) cannot be read (\(error)); `apus testbed down` removes what it stands for")
        }
    }

    /// Replaces the file in one step.
    func save() throws {
        let path = topology.hasMachines ? Self.lastingPath(topology.instance) : Self.path(topology.instance)
        try makeFolders(String(path[..<path.lastIndex(of: "/")!]))
        try writeJSON(self, to: path)
    }
    func remove() { for path in Self.files(topology.instance) { unlink(path) } }
}

/// A value as JSON with sorted keys.
func jsonBytes(_ value: some Encodable) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return Array(try encoder.encode(value))
}

/// Writes a value as JSON, replacing the file in one step. Anything but a regular file (/dev/null) is written to.
func writeJSON(_ value: some Encodable, to path: String) throws {
    let bytes = try jsonBytes(value) + [10]
    var info = stat()
    if stat(path, &info) == 0 && info.st_mode & S_IFMT != S_IFREG {
        let file = try FileDescriptor(opening: path, O_WRONLY)
        return try bytes.withUnsafeBytes { try file.write($0) }
    }
    let temporary = path + ".new"
    do {
        let file = try FileDescriptor(opening: temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        try bytes.withUnsafeBytes { try file.write($0) }
    }
    try checkC(rename(temporary, path), "replacing \(path)")
}

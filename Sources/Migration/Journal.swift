// The journal of one side of a migration: a header, then one line a state or an undo step, each written before what it
// tells of is done. It lives in /run and guards against the death of a process, so nothing is fsynced.
import Containers
import Engine
import Foundation
import Glibc
import LinuxKernel

/// What a journal says of its migration before anything is done.
public struct JournalHeader: Codable, Sendable {
    public enum Role: String, Codable, Sendable { case source, destination }
    public var migration: String
    public var role: Role
    public var container: String
    /// PID of the process that moves or of the stub; 0 while there is none.
    public var pid: Int32
    /// Start time of that process in clock ticks: with its PID it names it for good.
    public var startTime: UInt64
    /// Address of the other host's agent.
    public var peer: String
    /// PID of the agent that wrote this.
    public var agent: Int32
    public var network: ContainerNetworkRecord?
    public var cgroup: CgroupPlace?
    /// What whoever comes after a death needs to know of this host: its places, its runtime's program, where its agent
    /// listens.
    public var layout: HostLayout?
    public var runtime: String?
    public var address: String?
    public var peerName: String?
    /// Of a source: the destination's boot and identity, as it accepted.
    public var peerBoot: String?
    public var peerIdentity: String?
    public var plan: MigrationPlan?
    /// Whoever has it is a party of the migration.
    var secret: SessionSecret?

    /// Completes it with what is known of the host.
    mutating func describe(_ host: SessionHost) {
        (layout, address) = (host.layout, host.address)
        runtime = (host.runtime as? Runc)?.program
    }
}

/// A line of a journal.
enum JournalLine: Codable {
    case header(JournalHeader)
    case state(SessionState)
    /// Options that kill the destination with its engine are cleared: from here it may run.
    case disarmed
    case undo(UndoStep)
    case undone(UndoStep)
    /// The destination's container exists and has to be removed.
    case madeContainer
    /// Everything was put right, or handed over: nothing to do any more.
    case settled
    /// What the other side says happened, or an operator decided.
    case resolved(SessionState)
}

/// A journal that is being written.
final class Journal: UndoLog {
    let path: String
    private let file: FileDescriptor
    private(set) var header: JournalHeader
    /// Undo steps that were not taken back.
    private(set) var outstanding: [UndoStep] = []
    private(set) var isSettled = false
    /// Lines of the freeze, encoded before it.
    private var prepared: [SessionState: [UInt8]] = [:]

    init(_ header: JournalHeader, in folder: String) throws {
        try Folder.create(folder)
        self.header = header
        path = Self.path(header, in: folder)
        file = try FileDescriptor(opening: path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND)
        try write(.header(header))
        for state in SessionState.allCases { prepared[state] = try line(.state(state)) }
    }

    static func path(_ header: JournalHeader, in folder: String) -> String {
        "\(folder)/\(header.migration).\(header.role.rawValue)"
    }

    /// Replaces the header: later ones hold.
    func update(_ change: (inout JournalHeader) -> Void) throws {
        change(&header)
        try write(.header(header))
    }

    func state(_ state: SessionState) throws {
        try append(prepared[state]!)
    }

    func write(_ line: JournalLine) throws { try append(try self.line(line)) }

    func note(_ step: UndoStep) throws {
        try write(.undo(step))
        outstanding.append(step)
    }
    func done(_ step: UndoStep) throws {
        try write(.undone(step))
        if let index = outstanding.lastIndex(of: step) { outstanding.remove(at: index) }
    }

    /// Nothing is left to decide or to undo.
    func settle() throws {
        try write(.settled)
        unlink(path)
        isSettled = true
    }

    private func line(_ line: JournalLine) throws -> [UInt8] { try Self.encode(line) }
    static func encode(_ line: JournalLine) throws -> [UInt8] {
        [UInt8](try JSONEncoder().encode(line)) + [UInt8(ascii: "\n")]
    }

    private func append(_ bytes: [UInt8]) throws {
        try bytes.withUnsafeBytes { try file.write($0) }
    }
}

/// A journal as it was left.
struct JournalContent {
    let path: String
    var header: JournalHeader
    var state: SessionState?
    var disarmed = false, madeContainer = false, settled = false
    var resolved: SessionState?
    /// Steps that were not taken back, newest first.
    var undo: [UndoStep] = []

    init?(path: String) {
        guard let bytes = try? SmallFile.read(path) else { return nil }
        self.path = path
        var header: JournalHeader?
        let decoder = JSONDecoder()
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            // A line that was cut short by death tells of something that was not done.
            guard let line = try? decoder.decode(JournalLine.self, from: Data(line)) else { continue }
            switch line {
            case .header(let found): header = found
            case .state(let found): state = found
            case .disarmed: disarmed = true
            case .madeContainer: madeContainer = true
            case .undo(let step): undo.insert(step, at: 0)
            case .undone(let step): if let index = undo.firstIndex(of: step) { undo.remove(at: index) }
            case .settled: settled = true
            case .resolved(let found): resolved = found
            }
        }
        guard let header else { return nil }
        self.header = header
    }
}

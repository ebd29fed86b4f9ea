// The link process as seen from outside: started, asked, told, ended. `apus link FOLDER` is its other side
// (LinkServer).
import FoundationEssentials
import Glibc
import LinuxKernel

/// The process that moves the frames of a testbed's emulated links. It outlives the command that started it, and is
/// known by its folder: its command line names it, and it holds the links, the control socket and what it had to say.
public struct LinkService: Sendable {
    public let folder: String
    var linksPath: String { "\(folder)/links.json" }
    var socketPath: String { "\(folder)/control" }
    var logPath: String { "\(folder)/log" }

    public init(folder: String) { self.folder = folder }
    public init(instance: String) { self.init(folder: "\(TestbedState.folder)/testbed-\(instance)") }

    /// Starts the process and returns once every link stands. Interfaces of `.tap` links are made, without an address
    /// and down; those of `.shaper` links must exist and get their rates.
    ///
    /// - Parameter executable: the apus program; nil: the running one.
    /// - Throws: when it runs already, or a link cannot be made: then nothing runs.
    @discardableResult
    public func start(_ links: [EmulatedLink], executable: String? = nil) throws -> ChildProcess {
        guard Set(links.map(\.name)).count == links.count else { throw TestbedError("two links have the same name") }
        for link in links { try link.check() }
        guard processes.isEmpty else { throw TestbedError("links of \(folder) run already") }
        try makeFolders(folder)
        unlink(socketPath)
        try writeJSON(links, to: linksPath)
        let log = try FileDescriptor(opening: logPath, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        let child = try ChildProcess(try executable ?? Testbed.ownExecutable(), ["link", folder], output: log)
        let answers = try waitUntil(seconds: 10) {
            guard child.isRunning else { throw TestbedError("the link process ended at once: \(lastWords)") }
            return (try? status()) != nil
        }
        guard answers else {
            child.stop(grace: 0)
            throw TestbedError("the link process does not answer: \(lastWords)")
        }
        return child
    }

    /// Whether it answers; when it does not, its links are silent.
    public var isRunning: Bool { (try? status()) != nil }

    /// Every link, with what passed it so far.
    public func status() throws -> [LinkStatus] { try ask(.status) }

    /// Changes a link at once, both directions if none is named.
    ///
    /// - Throws: when there is no such link, or the quality that results is not one; then nothing has changed.
    public func change(_ link: String, _ direction: LinkDirection? = nil, to change: LinkChange) throws {
        _ = try ask(.change(link: link, direction: direction, change))
    }

    /// Plays a trace from now on, in place of one that is being played. After its end the last values stay.
    public func play(_ trace: LinkTrace, on link: String, repeated: Bool = false) throws {
        _ = try ask(.play(link: link, trace, repeated: repeated))
    }

    /// Ends the trace that is being played, if there is one; the values stay as they are.
    public func stopPlaying(_ link: String) throws { _ = try ask(.stop(link: link)) }

    /// Ends the process, and removes its folder. The interfaces stay until their namespaces end. Calling it again does
    /// nothing.
    public func end() {
        ProcessTable.end(processes, grace: 2)
        removeTree(folder)
    }

    /// PIDs of the process, found by its command line; empty: it does not run.
    public var processes: [Int32] { Leftovers.processes(naming: folder) }

    /// The last lines of what it wrote.
    var lastWords: String {
        ((try? SmallFile.text(logPath)) ?? "").split(separator: "\n").suffix(5).joined(separator: "; ")
    }

    private func ask(_ request: LinkRequest) throws -> [LinkStatus] {
        let answer: LinkAnswer
        do {
            let connection = try LocalSocket.connect(to: socketPath)
            try LocalSocket.send(try JSONEncoder().encode(request), to: connection)
            answer = try JSONDecoder().decode(LinkAnswer.self, from: try LocalSocket.receive(from: connection))
        } catch {
            throw TestbedError("the link process of \(folder) does not answer (\(error)): its links are silent")
        }
        if let error = answer.error { throw TestbedError(error) }
        return answer.links
    }
}

/// What the link process is asked: one request a connection.
enum LinkRequest: Codable {
    case status
    case change(link: String, direction: LinkDirection?, LinkChange)
    case play(link: String, LinkTrace, repeated: Bool)
    case stop(link: String)
}

struct LinkAnswer: Codable {
    var error: String?
    var links: [LinkStatus] = []
}

extension EmulatedLink {
    /// - Throws: when a quality is out of its range, or not what its means can do.
    func check() throws {
        for direction in LinkDirection.allCases {
            if let mistake = self[direction].mistake {
                throw TestbedError("link \(name), \(direction.rawValue): \(mistake)")
            }
            if means == .shaper && !self[direction].isRateOnly {
                throw TestbedError(
                    "link \(name) is a veth pair with a shaper, which knows a rate and a queue only:"
                        + " delay, jitter, loss and reordering need an emulated link")
            }
        }
    }
}

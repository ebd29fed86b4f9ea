// What a host remembers about a container of its own.
import Containers

/// A container of this host, as its agent remembers it (`record.json` in the container's folder).
public struct ContainerRecord: Codable, Sendable, Equatable {
    public var name: String
    /// ISO 8601, UTC: when this host got it.
    public var since: String
    /// The host it came from; nil if it was started here.
    public var origin: String?
    /// What its first process was started as.
    public var arguments: [String]
    /// The bundle it was started from; relative sources of its bind mounts start there.
    public var bundle: String
    /// Its own network, if it has one that moves with it.
    public var network: NetworkSpec?
    /// What that is attached to here.
    public var attachment: NetworkAttachment?
    /// How its first process ended here; nil: it runs, or ended while no agent watched.
    public var exit: ContainerExit?

    public init(
        name: String, since: String, origin: String? = nil, arguments: [String], bundle: String,
        network: NetworkSpec? = nil,
        attachment: NetworkAttachment? = nil
    ) {
        self.name = name
        self.since = since
        self.origin = origin
        self.arguments = arguments
        self.bundle = bundle
        self.network = network
        self.attachment = attachment
    }
}

/// How a container's first process ended.
public struct ContainerExit: Codable, Sendable, Equatable {
    /// What it returned; nil: a signal ended it, or the kernel does not tell (before Linux 6.15).
    public var status: Int32?
    /// The signal that ended it.
    public var signal: Int32?
    /// ISO 8601, UTC: when the agent noticed.
    public var at: String

    /// - Parameter waitStatus: as wait(2) has it; nil: not known.
    public init(waitStatus: Int32?, at: String) {
        self.at = at
        guard let waitStatus else { return }
        if waitStatus & 0x7f == 0 { status = waitStatus >> 8 & 0xff } else { signal = waitStatus & 0x7f }
    }

    /// "status 3", "signal 9".
    public var words: String {
        status.map { "status \($0)" } ?? signal.map { "signal \($0)" } ?? "nobody knows how (needs Linux 6.15)"
    }
}

extension ContainerNetworkRecord {
    /// Networks of every container that a host's files still tell of, those of migrations under way included: what is
    /// to be taken out of its bridge when the host is given up.
    public static func left(in layout: HostLayout) -> [ContainerNetworkRecord] {
        var found: [ContainerNetworkRecord] = []
        for folder in (try? layout.containers()) ?? [] {
            guard let record = try? folder.readRecord(as: ContainerRecord.self), let spec = record.network,
                let attachment = record.attachment
            else { continue }
            found.append(ContainerNetworkRecord(spec: spec, attachment: attachment))
        }
        let journals = layout.runFolder + "/migrations"
        for name in (try? Folder.names(journals)) ?? [] {
            if let network = JournalContent(path: "\(journals)/\(name)")?.header.network { found.append(network) }
        }
        return found
    }
}

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

extension ContainerNetworkRecord {
    /// Networks of every container that a host's files still tell of, those of migrations under way included: what is to be
    /// taken out of its bridge when the host is given up.
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

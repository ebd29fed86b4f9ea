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

// A link between two namespaces as it is to be made, and what can be told of one that stands.

/// One end of a link: an interface in a network namespace.
public struct LinkEnd: Sendable, Hashable, Codable {
    /// The namespace's name.
    public var network: String
    public var interface: String
    /// "02:a9:00:00:00:01"; nil: the kernel chooses one.
    public var mac: String?

    public init(network: String, interface: String, mac: String? = nil) {
        (self.network, self.interface, self.mac) = (network, interface, mac)
    }
    var namespace: NamedNetwork { NamedNetwork(network) }
}

/// A link with a quality for each direction.
public struct EmulatedLink: Sendable, Hashable, Codable {
    /// Who does what the quality says.
    public enum Means: String, Sendable, Codable {
        /// The link process, between two TAP interfaces that it makes: every property.
        case tap
        /// tc's htb on both interfaces, which exist already (a veth pair): a rate and a queue only.
        case shaper
    }
    /// Distinguishes the links of a testbed.
    public var name: String
    public var a: LinkEnd
    public var b: LinkEnd
    public var means: Means
    /// From `a` to `b`.
    public var forward: LinkQuality
    /// From `b` to `a`.
    public var backward: LinkQuality

    public init(
        name: String, a: LinkEnd, b: LinkEnd, means: Means = .tap, forward: LinkQuality = .init(),
        backward: LinkQuality = .init()
    ) {
        (self.name, self.a, self.b, self.means) = (name, a, b, means)
        (self.forward, self.backward) = (forward, backward)
    }

    public subscript(direction: LinkDirection) -> LinkQuality {
        get { direction == .forward ? forward : backward }
        set { if direction == .forward { forward = newValue } else { backward = newValue } }
    }
    /// Where frames of a direction enter the link.
    func entry(_ direction: LinkDirection) -> LinkEnd { direction == .forward ? a : b }
}

/// What passed one direction of a link since it was made (a shaper: since it got a rate). A large frame counts as the
/// frames it stands for on the wire.
public struct LinkCounters: Sendable, Hashable, Codable {
    /// Delivered.
    public var frames: UInt64 = 0
    /// Delivered, with link-layer headers.
    public var bytes: UInt64 = 0
    /// Dropped because `loss` says so.
    public var lost: UInt64 = 0
    /// Dropped because the queue, or the memory for frames on their way, was full.
    public var overflowed: UInt64 = 0
    /// Let through before those that waited (`reorder`).
    public var early: UInt64 = 0
    /// Dropped because the interface at the end took none.
    public var refused: UInt64 = 0
    public init() {}
}

/// A standing link.
public struct LinkStatus: Sendable, Hashable, Codable {
    /// With its qualities as they are now.
    public var link: EmulatedLink
    public var forward = LinkCounters()
    public var backward = LinkCounters()
    /// The file of the trace that is being played.
    public var trace: String?
    /// Why it does not work as told, if it does not.
    public var problem: String?
}

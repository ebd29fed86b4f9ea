// A user device moves from one access point to another.
import LinuxKernel

/// What happened, and when.
public struct Handoff: Sendable, Codable, Hashable {
    /// Name of the access point that was left; nil: there was none.
    public var from: String?
    /// Name of the access point that the user device is attached to now.
    public var to: String
    /// Nanoseconds of CLOCK_MONOTONIC: nothing passed any more by the old one, and everything passes by the new one.
    public var leftAt, joinedAt: Int64
}

extension Testbed {
    /// Hands a user device over: the old radio link falls silent, the reconnection takes its time, the new link carries
    /// frames and every switch hears of it. The first and the last step take some 30 µs each.
    ///
    /// - Parameter reconnection: milliseconds without any link (0...60,000). It can last longer by what the machine needs
    ///   to wake a task; the result has the true instants.
    @discardableResult
    public func attach(_ user: UserDevice, to accessPoint: AccessPoint, reconnection: Double) async throws -> Handoff {
        guard (0...60_000).contains(reconnection) else {
            throw TestbedError("a reconnection of \(plain(reconnection)) ms: 0 to 60,000 are possible")
        }
        let attachment = try Attachment(user, topology)
        let old = try attachment.current()
        if old == accessPoint {
            let now = monotonicNow()
            return Handoff(from: old?.name, to: accessPoint.name, leftAt: now, joinedAt: now)
        }
        if let old { try attachment.leave(old) }
        let left = monotonicNow()
        if reconnection > 0 { try await Task.sleep(for: .microseconds(Int64(reconnection * 1000))) }
        try attachment.join(accessPoint)
        return Handoff(from: old?.name, to: accessPoint.name, leftAt: left, joinedAt: monotonicNow())
    }

    /// The access point that a user device is attached to; nil: none.
    public func accessPoint(of user: UserDevice) throws -> AccessPoint? {
        guard !topology.accessPoints.isEmpty else { return nil }
        return try Attachment(user, topology).current()
    }
}

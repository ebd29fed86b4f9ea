// Freeze, send everything, resume.

/// Cold migration: downtime = M / b + fixed parts, whatever the program does.
public struct ColdModel: Sendable {
    /// M: the state in bytes.
    public var size: Double
    /// b: bytes a second that reach the destination, above 0.
    public var bandwidth: Double
    /// What the freeze costs beside the transfer, in milliseconds.
    public var fixed: Double

    public init(size: Double, bandwidth: Double, fixed: Double = 0) {
        (self.size, self.bandwidth, self.fixed) = (size, bandwidth, fixed)
    }

    /// In milliseconds.
    public var base: Double { sendingTime(size, bandwidth) }
    /// In milliseconds; the migration time is the same, but for what is prepared before the freeze.
    public var downtime: Double { base + fixed }
}

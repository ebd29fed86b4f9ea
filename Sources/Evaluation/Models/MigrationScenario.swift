// What is to be predicted.

/// A migration to predict, or one of several that go over one link at the same time.
public struct MigrationScenario: Sendable, Hashable, Codable {
    /// The state in bytes, above 0.
    public var size: Double
    /// Bytes of pages dirtied a second, 0 or more.
    public var dirtyRate: Double
    /// The most that can be dirty at once in bytes, above 0 and at most `size`; nil: all of it.
    public var workingSet: Double?
    /// Of the link, in bytes a second, above 0; infinity: the page stream is the limit.
    public var bandwidth: Double
    /// Milliseconds, 0 or more.
    public var roundTrip: Double
    /// Alike, moved at the same time; each gets its part of the link. 1 or more.
    public var containers = 1
    /// Pre-copy's, in milliseconds.
    public var downtimeLimit = 5.0
    /// Pre-copy's rounds before the last one.
    public var maxRounds = 30
    /// Pages are written at random, some of them again before they were sent; else each of them once.
    public var writesAtRandom = false

    public init(size: Double, dirtyRate: Double, workingSet: Double? = nil, bandwidth: Double, roundTrip: Double) {
        (self.size, self.dirtyRate, self.workingSet) = (size, dirtyRate, workingSet)
        (self.bandwidth, self.roundTrip) = (bandwidth, roundTrip)
    }
}

// What MiGrror's authors published as simulation: constants, here as data.

/// A technique in the published fork of MobFogSim. It simulates neither dirty pages nor events: times and traffic are
/// constants times the base, size / bandwidth, with jitter.
///
/// Never calibrate to these. They stand beside measurements and models, marked as what they are.
public struct PublishedSimulation: Sendable, Hashable {
    /// A constant and how far its jitter reaches on either side.
    public struct Constant: Sendable, Hashable, Codable {
        public var value: Double
        public var spread: Double
    }
    public enum Downtime: Sendable, Hashable {
        /// A share of the migration time.
        case share(Constant)
        /// A factor times (handoff + 100 ms), the latter the user device's reconnection: whatever size, bandwidth,
        /// load and dirty rate are. The result is printed divided by `printedDivisor`.
        case handoff(factor: Double, printedDivisor: Double)
    }

    /// Name of the technique.
    public var name: String
    /// Migration time over the base.
    public var migrationTime: Constant
    public var downtime: Downtime
    /// Bytes sent over the size.
    public var traffic: Constant

    /// The user device's reconnection in milliseconds, part of the handoff's downtimes.
    public static let reconnection = 100.0

    /// All of the table.
    public static let techniques: [PublishedSimulation] = [
        .init("cold", 1, .share(.init(value: 1, spread: 0)), 1),
        .init("post-copy", 1.3, .share(.init(value: 0.15, spread: 0)), 1),
        .init("pre-copy", 1.349, spread: 0.11, .share(.init(value: 0.0987, spread: 0.005)), 1.05),
        .init(
            "MiGrror", 1.296, spread: 0.11, .handoff(factor: 5, printedDivisor: 100), 1.1745, trafficSpread: 0.153),
        .init("pre + post", 1.458, spread: 0.11, .share(.init(value: 0.0304, spread: 0)), 1.04),
        .init("MiGrror + post", 1.405, spread: 0.11, .handoff(factor: 3.109, printedDivisor: 1), 0.88),
    ]

    private init(
        _ name: String, _ migrationTime: Double, spread: Double = 0, _ downtime: Downtime, _ traffic: Double,
        trafficSpread: Double = 0
    ) {
        self.name = name
        self.migrationTime = Constant(value: migrationTime, spread: spread)
        self.downtime = downtime
        self.traffic = Constant(value: traffic, spread: trafficSpread)
    }

    /// Migration time in milliseconds without jitter, of bytes at bytes a second.
    public func migrationTime(size: Double, bandwidth: Double) -> Double {
        migrationTime.value * sendingTime(size, bandwidth)
    }

    /// Downtime in milliseconds without jitter, as it is printed.
    ///
    /// - Parameter handoff: the radio handoff's time in milliseconds.
    public func downtime(size: Double, bandwidth: Double, handoff: Double) -> Double {
        let raw = rawDowntime(size: size, bandwidth: bandwidth, handoff: handoff)
        if case .handoff(_, let divisor) = downtime { return raw / divisor }
        return raw
    }

    /// The same as it is computed, before it is divided for printing.
    public func rawDowntime(size: Double, bandwidth: Double, handoff: Double) -> Double {
        switch downtime {
        case .share(let share): share.value * migrationTime(size: size, bandwidth: bandwidth)
        case .handoff(let factor, _): factor * (handoff + Self.reconnection)
        }
    }
}

// Parameters from measurements.

/// The fixed part of a downtime and its growth with the state, from moves of several sizes.
public struct ParameterFit: Sendable, Hashable, Codable {
    /// Downtime of an empty state, in milliseconds.
    public var fixed: Double
    /// Growth in milliseconds a GiB.
    public var perGiB: Double
    /// The line itself, x in bytes: R² and relative errors say how far to trust the two.
    public var line: LineFit

    /// nil for fewer than two different sizes.
    ///
    /// - Parameter measured: sizes in bytes with downtimes in milliseconds, one pair a move or one a median.
    public init?(_ measured: [(size: Double, downtime: Double)]) {
        guard let line = LineFit(measured.map { (x: $0.size, y: $0.downtime) }) else { return nil }
        self.line = line
        fixed = line.intercept
        perGiB = line.slope * Double(1 << 30)
    }

    /// Of cold moves, whose growth is the transfer: bytes a second; nil if the downtime does not grow.
    public var bandwidth: Double? { line.slope > 0 ? 1000 / line.slope : nil }

    /// `parameters` with the growth and the fixed part that were measured, split between freeze and resume as before.
    /// For moves whose downtime holds no transfer to speak of, such as MiGrror's at a low dirty rate.
    public func applied(to parameters: EngineParameters) -> EngineParameters {
        var parameters = parameters
        let before = parameters.freezeFixed + parameters.resume
        let share = before > 0 ? parameters.resume / before : 0
        parameters.resume = fixed * share
        parameters.freezeFixed = fixed - parameters.resume
        parameters.scanPerGiB = perGiB
        return parameters
    }
}

// What a model says about one migration.

/// One technique's migration as a model predicts it, with handover when ready.
public struct Prediction: Sendable, Hashable, Codable {
    /// The technique, of whose making.
    public var name: String
    /// Whose model says so.
    public var model: String
    /// From the first byte of memory to the destination serving, in milliseconds. What comes before, negotiating and
    /// copying the root file system, depends on the container and is left out.
    public var migrationTime: Double
    /// In milliseconds.
    public var downtime: Double
    /// Bytes sent.
    public var traffic: Double
    /// (traffic - size) / size.
    public var overhead: Double
    /// What the figures rest on, or what goes wrong.
    public var remarks: [String]

    init(
        _ name: String, model: String, time: Double, downtime: Double, traffic: Double, size: Double,
        _ remarks: [String]
    ) {
        (self.name, self.model, self.remarks) = (name, model, remarks)
        (migrationTime, self.downtime, self.traffic) = (time, downtime, traffic)
        overhead = (traffic - size) / size
    }
}

// Where a user was, step by step, and in between.

/// A user's position and motion at an instant.
public struct MobilitySample: Sendable, Hashable, Codable {
    /// Seconds.
    public var time: Double
    /// Metres.
    public var x: Double
    public var y: Double
    /// Degrees clockwise from north (the y axis), 0 to below 360: SUMO's angle.
    public var heading: Double
    /// Metres a second, 0 or more.
    public var speed: Double

    public init(time: Double, x: Double, y: Double, heading: Double, speed: Double) {
        (self.time, self.x, self.y, self.heading, self.speed) = (time, x, y, heading, speed)
    }
}

/// A user's way.
public struct MobilityTrace: Sendable, Hashable, Codable {
    /// The user's name.
    public var user: String
    /// In order of time, each later than the one before; at least two.
    public private(set) var samples: [MobilitySample]

    init(user: String, samples: [MobilitySample]) {
        precondition(samples.count >= 2 && zip(samples, samples.dropFirst()).allSatisfy { $0.time < $1.time })
        (self.user, self.samples) = (user, samples)
    }

    public var start: Double { samples[0].time }
    public var end: Double { samples[samples.count - 1].time }

    /// Between two samples in a straight line; before the first and after the last one it stands there.
    public func sample(at time: Double) -> MobilitySample {
        guard time > start else { return standing(samples[0], at: time) }
        guard time < end else { return standing(samples[samples.count - 1], at: time) }
        // The first sample that is later: binary search.
        var (low, high) = (0, samples.count - 1)
        while low + 1 < high {
            let middle = (low + high) / 2
            if samples[middle].time <= time { low = middle } else { high = middle }
        }
        let (from, to) = (samples[low], samples[high])
        let share = (time - from.time) / (to.time - from.time)
        func between(_ first: Double, _ second: Double) -> Double { first + (second - first) * share }
        // The shorter way around: from 350° to 10° by 0°.
        let turn = (to.heading - from.heading + 540).truncatingRemainder(dividingBy: 360) - 180
        return MobilitySample(
            time: time, x: between(from.x, to.x), y: between(from.y, to.y),
            heading: Self.normalised(from.heading + turn * share), speed: between(from.speed, to.speed))
    }

    private func standing(_ sample: MobilitySample, at time: Double) -> MobilitySample {
        var sample = sample
        if time != sample.time { (sample.time, sample.speed) = (time, 0) }
        return sample
    }

    /// An angle as 0 to below 360 degrees.
    static func normalised(_ angle: Double) -> Double {
        let rest = angle.truncatingRemainder(dividingBy: 360)
        return rest < 0 ? rest + 360 : rest
    }
}

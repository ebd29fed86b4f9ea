// The geometry of access points: distance, heading out, where a user will be.
import Glibc

/// An access point on the map.
public struct CellSite: Sendable, Hashable, Codable {
    public var name: String
    /// Metres.
    public var x: Double
    public var y: Double
    public init(name: String, x: Double, y: Double) { (self.name, self.x, self.y) = (name, x, y) }

    public func distance(_ x: Double, _ y: Double) -> Double { hypot(x - self.x, y - self.y) }
    func distance(_ user: MobilitySample) -> Double { distance(user.x, user.y) }
}

/// When a user's service is prepared for a move and when the device changes its access point. Metres from the access
/// point that serves; the defaults are the published scenario's.
public struct MobilityRules: Sendable, Hashable, Codable {
    /// An access point reaches this far.
    public var coverage = 1000.0
    /// The migration zone begins here and ends with the coverage.
    public var zone = 800.0
    /// The handoff is due from here on.
    public var handoff = 960.0
    /// Who has come this much nearer again has turned back.
    public var turnBack = 20.0
    /// Seconds from one look at the users to the next.
    public var step = 1.0

    public init() {}

    /// What contradicts itself; nil: nothing.
    public var mistake: String? {
        if !(zone > 0 && zone <= handoff && handoff <= coverage && coverage < 1e6) {
            return "zone (\(plain(zone)) m), handoff (\(plain(handoff)) m) and coverage (\(plain(coverage)) m) must "
                + "follow each other from 0"
        }
        if !(turnBack > 0 && turnBack < 1e6) { return "turning back must be above 0 m" }
        if !(step > 0 && step <= 10) { return "a step must be above 0 s and at most 10 s" }
        return nil
    }
}

extension MobilitySample {
    /// Metres a second, east and north.
    var velocity: (x: Double, y: Double) {
        let angle = heading * .pi / 180
        return (speed * sin(angle), speed * cos(angle))
    }

    /// How fast the user moves away from an access point, metres a second; negative: it comes nearer.
    func radialSpeed(_ site: CellSite) -> Double {
        let distance = site.distance(self)
        let (vx, vy) = velocity
        return distance == 0 ? speed : ((x - site.x) * vx + (y - site.y) * vy) / distance
    }

    /// When the user will be that far from an access point, going on as now: seconds from here, and the place. nil:
    /// never.
    func reaches(_ radius: Double, from site: CellSite) -> (seconds: Double, x: Double, y: Double)? {
        if site.distance(self) >= radius { return (0, x, y) }
        let (vx, vy) = velocity
        let (dx, dy) = (x - site.x, y - site.y)
        // |d + v t| = radius: inside the circle there is one root above 0.
        let (a, b, c) = (vx * vx + vy * vy, dx * vx + dy * vy, dx * dx + dy * dy - radius * radius)
        guard a > 0 else { return nil }
        let seconds = (-b + sqrt(b * b - a * c)) / a
        return (seconds, x + vx * seconds, y + vy * seconds)
    }
}

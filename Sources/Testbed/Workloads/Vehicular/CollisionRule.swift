// The rule by which vehicles are warned, as Workloads/vehicular.c has it: in integers, so that both find the same.

/// Follows the tracks of vehicles, report after report.
struct CollisionRule {
    /// A course follows from this many of the last reports.
    static let courseReports = 8
    /// Centimetres, milliseconds, centimetres a second.
    static let (near, horizon, fastest) = (Int64(300), Int64(5000), Int64(10_000))

    private struct Point {
        var time: Int64
        var x: Int64
        var y: Int64
    }
    private struct Course {
        var x: Int64
        var y: Int64
        var vx: Int64
        var vy: Int64
    }
    /// The last reports of each vehicle, oldest first, and what follows from them.
    private var tracks: [[Point]]
    private var courses: [Course?]

    init(vehicles: Int) {
        tracks = Array(repeating: [], count: vehicles)
        courses = Array(repeating: nil, count: vehicles)
    }

    /// Takes the next report and says whom its vehicle is warned of: of those that come too near within the horizon
    /// the soonest, among equals the first.
    mutating func keep(_ vehicle: Int, at time: Int64, x: Int32, y: Int32) -> CollisionWarning {
        tracks[vehicle].append(Point(time: time, x: Int64(x), y: Int64(y)))
        if tracks[vehicle].count > Self.courseReports { tracks[vehicle].removeFirst() }
        let own = course(tracks[vehicle])
        courses[vehicle] = own
        var found: (other: Int, after: Int64)?
        for (index, course) in courses.enumerated() {
            guard index != vehicle, let its = course else { continue }
            var (x, y) = (its.x - own.x, its.y - own.y)
            let (vx, vy) = (its.vx - own.vx, its.vy - own.vy)
            let square = vx * vx + vy * vy
            let time = square == 0 ? 0 : min(max(-(x * vx + y * vy) * 1000 / square, 0), Self.horizon)
            x += vx * time / 1000
            y += vy * time / 1000
            if x * x + y * y <= Self.near * Self.near && time < found?.after ?? .max { found = (index, time) }
        }
        return found.map { CollisionWarning(other: UInt32($0.other), after: UInt32($0.after)) } ?? .none
    }

    private func course(_ track: [Point]) -> Course {
        let (newest, oldest) = (track[track.count - 1], track[0])
        let elapsed = (newest.time - oldest.time) / 1000
        func velocity(_ distance: Int64) -> Int64 {
            elapsed > 0 ? min(max(distance * 1_000_000 / elapsed, -Self.fastest), Self.fastest) : 0
        }
        return Course(x: newest.x, y: newest.y, vx: velocity(newest.x - oldest.x), vy: velocity(newest.y - oldest.y))
    }
}

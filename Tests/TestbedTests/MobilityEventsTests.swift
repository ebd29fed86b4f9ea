import Foundation
import Migration
import Testing

@testable import Testbed

/// Access points at 0 and 1,334 m on a street; the user's way is given by hand, so are the instants.
struct MobilityEventsTests {
    private let sites = TraceGenerator.grid(columns: 2, rows: 1)
    private let rules = MobilityRules()

    /// A step a second along the street.
    private func trace(_ xs: [Double]) -> MobilityTrace {
        MobilityTrace(
            user: "u",
            samples: xs.enumerated().map { index, x in
                let next = index + 1 < xs.count ? xs[index + 1] - x : x - xs[index - 1]
                return MobilitySample(
                    time: Double(index), x: x, y: 0, heading: next < 0 ? 270 : 90, speed: abs(next))
            })
    }
    private func said(_ events: [MobilityEvent]) -> [String] {
        events.map {
            "\(plain($0.time)) \($0.kind.rawValue) \($0.serving)→\($0.target.map(String.init) ?? "-") \(plain($0.distance))"
        }
    }

    @Test func straightOn() {
        let way = trace(stride(from: 600.0, through: 1300, by: 10).map { $0 })
        #expect(said(way.events(sites, rules)) == ["20 zone-entered 0→1 800", "36 handoff 0→1 960"])
        // (960 m - 760 m) / 10 m/s = 20 s.
        #expect(
            said(way.events(sites, rules, lead: 20)) == [
                "16 lead-reached 0→1 760", "20 zone-entered 0→1 800", "36 handoff 0→1 960",
            ])
        #expect(said(way.events(sites, rules, lead: 3)).dropFirst().first == "33 lead-reached 0→1 930")
        // Between the steps, too: 962.5 m are 36.25 s from the start.
        var finer = rules
        (finer.step, finer.handoff) = (0.25, 962.5)
        #expect(said(way.events(sites, finer)).last == "36.25 handoff 0→1 962.5")
    }

    @Test func turningBackEndsAnApproach() {
        let out = stride(from: 600.0, through: 900, by: 10).map { $0 }
        let back = stride(from: 890.0, through: 750, by: -10).map { $0 }
        let again = stride(from: 760.0, through: 1000, by: 10).map { $0 }
        #expect(
            said(trace(out + back + again).events(sites, rules)) == [
                "20 zone-entered 0→1 800", "32 turned-back 0→- 880", "50 zone-entered 0→1 800", "66 handoff 0→1 960",
            ])
        // A stop, or a few metres back, is none.
        #expect(
            said(trace(out + [900, 890, 885, 895, 905] + [915]).events(sites, rules)) == ["20 zone-entered 0→1 800"])
    }

    @Test func noHandoffWithoutANearerAccessPoint() {
        // Away from both: no zone that leads anywhere, then nobody reaches the user.
        let away = trace(stride(from: -700.0, through: -1100, by: -10).map { $0 })
        #expect(said(away.events(sites, rules)) == ["31 uncovered 0→- 1010"])
        let alone = trace(stride(from: 600.0, through: 1300, by: 10).map { $0 })
        #expect(said(alone.events([sites[0]], rules)) == ["41 uncovered 0→- 1010"])
        // Nobody reaches its first step.
        #expect(said(trace([5000, 5010]).events(sites, rules)).count == 1)
    }

    /// Beyond the coverage the heading does not matter.
    @Test func beyondTheCoverageHeadingDoesNotMatter() {
        func way(_ last: Double) -> MobilityTrace {
            let way = [(600.0, 90.0), (930, 90), (950, 270), (last, 270)]
            return MobilityTrace(
                user: "u",
                samples: way.enumerated().map {
                    MobilitySample(time: Double($0), x: $1.0, y: 0, heading: $1.1, speed: 10)
                })
        }
        #expect(way(990).events(sites, rules).last?.kind == .zoneEntered)
        #expect(said(way(1005).events(sites, rules)).last == "3 handoff 0→1 1005")
    }

    @Test func whereAUserWillBe() throws {
        let user = MobilitySample(time: 0, x: 300, y: 400, heading: 0, speed: 10)
        // 500 m away; north is (0, 1): the way out is 400 / 500 of it.
        #expect(abs(user.radialSpeed(sites[0]) - 8) < 1e-9)
        // √(960² - 300²) = 911.92, from 400 at 10 m/s.
        let ahead = try #require(user.reaches(960, from: sites[0]))
        #expect(abs(ahead.seconds - 51.1921) < 1e-3 && abs(ahead.x - 300) < 1e-6 && abs(ahead.y - 911.921) < 1e-2)
        var standing = user
        standing.speed = 0
        #expect(standing.reaches(960, from: sites[0]) == nil)
    }

    @Test func rulesThatContradictAreNamed() {
        #expect(rules.mistake == nil)
        var wrong = rules
        wrong.zone = 970
        #expect(wrong.mistake?.contains("zone (970 m), handoff (960 m)") == true)
    }

    // MARK: - Strategies, on the recorded cars

    /// What a strategy does for the n-th car, when migrations take no time.
    private func actions(_ strategy: MobilityStrategy, car: Int, lead: Double? = nil) throws -> [String] {
        let trace = try MobilityTrace.read("Plans/traces/three-cars.csv")[car]
        let sites = TraceGenerator.grid(columns: 3, rows: 1)
        var mover = ServiceMover(strategy, hosts: [0, 1, 2], site: try #require(trace.firstSite(sites, rules)))
        var said: [String] = []
        for event in trace.events(sites, rules, lead: lead) {
            guard let action = mover.take(event) else { continue }
            said.append("\(plain(event.time)) \(text(action))")
            switch action {
            case .cancel: #expect(mover.ended(arrived: false) == nil)
            case .handOver, .start(_, .whenReady): #expect(mover.ended(arrived: true) == nil)
            case .start(_, .atTrigger): #expect(mover.isMoving)
            }
        }
        #expect(!mover.isMoving)
        #expect(strategy == .staying || mover.at == mover.userHost)
        return said
    }
    private func text(_ action: ServiceMover.Action) -> String {
        switch action {
        case .start(let host, let policy): "start \(host) \(policy.rawValue)"
        case .handOver: "hand over"
        case .cancel: "cancel"
        }
    }

    @Test func strategiesOnARecordedTrace() throws {
        #expect(try actions(.staying, car: 0) == [])
        #expect(try actions(.reactive, car: 0) == ["40 start 1 when-ready"])
        #expect(try actions(.proactive, car: 0) == ["29 start 1 at-trigger", "40 hand over"])
        // 960 m are 5 s away at 890 m.
        #expect(try actions(.predicted, car: 0, lead: 5) == ["35 start 1 at-trigger", "40 hand over"])
        #expect(try actions(.proactive, car: 1) == ["36 start 2 at-trigger", "48 hand over"])
        // The third one turns back.
        #expect(try actions(.reactive, car: 2) == [])
        #expect(try actions(.proactive, car: 2) == ["22 start 1 at-trigger", "31 cancel"])
        // So short before the handoff that it does not come to it.
        #expect(try actions(.predicted, car: 2, lead: 2) == [])
    }

    private func event(_ kind: MobilityEvent.Kind, _ target: Int? = nil) -> MobilityEvent {
        MobilityEvent(time: 0, kind: kind, serving: 0, target: target, distance: 0)
    }

    @Test func oneMigrationAtATime() {
        var mover = ServiceMover(.proactive, hosts: [0, 1, 2], site: 0)
        #expect(mover.take(event(.zoneEntered, 1)) == .start(to: 1, .atTrigger))
        // Handed to another one than expected: what was begun ends first.
        #expect(mover.take(event(.handoff, 2)) == .cancel)
        #expect(mover.take(event(.zoneEntered, 1)) == nil)
        #expect(mover.ended(arrived: false) == .start(to: 1, .atTrigger))
        #expect(mover.take(event(.handoff, 1)) == .handOver)
        // The next handoff comes while that is under way; it arrives before it can be cancelled, and follows.
        #expect(mover.take(event(.handoff, 2)) == .cancel)
        #expect(mover.ended(arrived: true) == .start(to: 2, .whenReady))
        #expect(mover.at == 1)
        // One that failed is not tried again by itself, but at the next event.
        #expect(mover.ended(arrived: false) == nil)
        #expect(mover.take(event(.turnedBack)) == .start(to: 2, .whenReady))
        #expect(mover.ended(arrived: true) == nil && mover.at == 2)
    }

    /// A way may end between the zone and the handoff: what was begun for it is cancelled, and nothing begins instead.
    @Test func whatWaitsAtTheEndIsCancelled() {
        var mover = ServiceMover(.proactive, hosts: [0, 1, 2], site: 0)
        #expect(mover.wayEnded() == nil)
        #expect(mover.take(event(.zoneEntered, 1)) == .start(to: 1, .atTrigger))
        #expect(mover.wayEnded() == .cancel && mover.isCancelled)
        #expect(mover.wayEnded() == nil, "once")
        #expect(mover.ended(arrived: false) == nil && !mover.isMoving && mover.at == 0)
        // What has its trigger, or needs none, comes to its end.
        #expect(mover.take(event(.zoneEntered, 1)) == .start(to: 1, .atTrigger))
        #expect(mover.take(event(.handoff, 1)) == .handOver)
        #expect(mover.wayEnded() == nil && mover.ended(arrived: true) == nil && mover.at == 1)
    }

    /// Two access points of one host: a handoff without a migration.
    @Test func accessPointsMayShareAHost() {
        var mover = ServiceMover(.reactive, hosts: [0, 0], site: 0)
        #expect(mover.take(event(.handoff, 1)) == nil)
    }

    @Test func aServiceIsFarUntilItHasFollowed() {
        let places = MobilityPlaces(
            start: "a", devices: [(10, "b"), (50, "a"), (60, "b")], services: [(15, "b"), (55, "a"), (60, "b")])
        #expect(places.far == [10..<15, 50..<55])
        #expect(MobilityPlaces(start: "a", devices: [(10, "b")], services: []).far == [10..<Int64.max])
        #expect(MobilityPlaces(start: "", devices: [], services: []).far.isEmpty)
    }
}

// From a trace to what happens on the way: migration zones, handoffs, second thoughts. A function of its input alone.

/// Something that happens to a user on the way.
public struct MobilityEvent: Sendable, Hashable, Codable {
    public enum Kind: String, Sendable, Hashable, Codable {
        /// In the migration zone, heading out: `target` is where the user would be handed to, going on like this.
        case zoneEntered = "zone-entered"
        /// The handoff is expected within the lead, going on like this, to `target`.
        case leadReached = "lead-reached"
        /// Nearer again after one of the two, without a handoff.
        case turnedBack = "turned-back"
        /// The device changes to `target`.
        case handoff
        /// No access point reaches the user any more.
        case uncovered
    }
    /// Seconds of the trace.
    public var time: Double
    public var kind: Kind
    /// Index of the access point that serves until then.
    public var serving: Int
    /// Index of the one that is meant; nil: the event has none.
    public var target: Int?
    /// Metres from the one that serves.
    public var distance: Double

    public init(time: Double, kind: Kind, serving: Int, target: Int?, distance: Double) {
        (self.time, self.kind, self.serving, self.target, self.distance) = (time, kind, serving, target, distance)
    }
}

extension MobilityTrace {
    /// The access point that serves first: the nearest one. nil: there is none within the coverage.
    public func firstSite(_ sites: [CellSite], _ rules: MobilityRules) -> Int? {
        sites.nearest(samples[0].x, samples[0].y, within: rules.coverage)
    }

    /// What happens from the trace's start to its end, looked at every `rules.step` seconds. At one instant, in this
    /// order:
    ///
    /// 1. *Handoff*: at least `handoff` metres away, heading out (radial speed above 0) or beyond the coverage, and
    ///    another access point is nearer and covers the user: the nearest such one.
    /// 2. *Uncovered*: beyond the coverage, and nobody else covers the user: once, until someone does.
    /// 3. *Turned back*: after an approach (4 or 5), at least `turnBack` metres nearer than its farthest point.
    /// 4. *Zone entered*: at least `zone` metres away and heading out, once an approach.
    /// 5. *Lead reached*: heading out and at most `lead` seconds before the handoff distance, going straight on: once.
    ///
    /// 4 and 5 need a target: the access point that would be nearest at the handoff distance, going straight on, if it
    /// is nearer there than the one that serves.
    ///
    /// - Parameter lead: nil: there are no events of kind 5.
    public func events(_ sites: [CellSite], _ rules: MobilityRules, lead: Double? = nil) -> [MobilityEvent] {
        guard let first = firstSite(sites, rules) else {
            return [MobilityEvent(time: start, kind: .uncovered, serving: 0, target: nil, distance: 0)]
        }
        var walk = Walk(sites: sites, rules: rules, lead: lead, serving: first)
        for index in 0...Int((end - start) / rules.step) {
            walk.look(at: sample(at: start + Double(index) * rules.step))
        }
        return walk.events
    }
}

extension [CellSite] {
    /// The nearest to a place. nil: none is within the radius.
    func nearest(_ x: Double, _ y: Double, within radius: Double, except excluded: Int? = nil) -> Int? {
        indices.filter { $0 != excluded && self[$0].distance(x, y) <= radius }
            .min { self[$0].distance(x, y) < self[$1].distance(x, y) }
    }
}

/// A user on the way.
private struct Walk {
    let sites: [CellSite]
    let rules: MobilityRules
    let lead: Double?
    var serving: Int
    var events: [MobilityEvent] = []
    /// Farthest from the access point since the approach began; nil: there is no approach.
    private var farthest: Double?
    private var isInZone = false
    private var hasReachedLead = false
    private var isCovered = true

    init(sites: [CellSite], rules: MobilityRules, lead: Double?, serving: Int) {
        (self.sites, self.rules, self.lead, self.serving) = (sites, rules, lead, serving)
    }

    mutating func look(at user: MobilitySample) {
        let site = sites[serving]
        let distance = site.distance(user)
        let isHeadingOut = user.radialSpeed(site) > 0
        func event(_ kind: MobilityEvent.Kind, _ target: Int? = nil) -> MobilityEvent {
            MobilityEvent(time: user.time, kind: kind, serving: serving, target: target, distance: distance)
        }
        let isBeyond = distance > rules.coverage
        if distance >= rules.handoff, isHeadingOut || isBeyond,
            let target = sites.nearest(user.x, user.y, within: min(distance.nextDown, rules.coverage), except: serving)
        {
            events.append(event(.handoff, target))
            (serving, farthest, isInZone, hasReachedLead, isCovered) = (target, nil, false, false, true)
            return
        }
        if isBeyond, isCovered { events.append(event(.uncovered)) }
        isCovered = !isBeyond
        if let far = farthest {
            farthest = max(far, distance)
            if distance <= far - rules.turnBack {
                events.append(event(.turnedBack))
                (farthest, isInZone, hasReachedLead) = (nil, false, false)
            }
        }
        guard isHeadingOut, !isBeyond, let ahead = user.reaches(rules.handoff, from: site),
            let target = sites.nearest(
                ahead.x, ahead.y, within: min(site.distance(ahead.x, ahead.y).nextDown, rules.coverage), except: serving
            )
        else { return }
        if !isInZone && distance >= rules.zone {
            events.append(event(.zoneEntered, target))
            (isInZone, farthest) = (true, max(farthest ?? 0, distance))
        }
        if !hasReachedLead, let lead, ahead.seconds <= lead {
            events.append(event(.leadReached, target))
            (hasReachedLead, farthest) = (true, max(farthest ?? 0, distance))
        }
    }
}

// MiGrror as a queue of events. Our derivation: the authors' equations are not public.

/// Containers that are mirrored over one link, at rates that may change with time.
///
/// An event is `eventSize` bytes dirtied; it arrives when they are, and events are sent in the order of their arrival:
/// f_k = max(a_k, f_{k-1}) + s_k/b + o. The first copies are in the queue at 0, without o. At the handover all
/// containers freeze together, what is unsent follows, and downtime = U/b + RTT + context + switch + resume. With a
/// working set, a page that waits and is dirtied again waits once: of what a container dirtied, no more than its
/// working set is ever unsent.
///
/// Left out: what tracking costs the programs; that pages dirtied before the first copy reached them need no event.
public struct MirrorQueueModel: Sendable {
    public struct Container: Sendable {
        /// M in bytes.
        public var size: Double
        /// d(t): bytes of pages dirtied a second.
        public var dirtyRate: PiecewiseConstant
        /// s: bytes that make an event, above 0.
        public var eventSize: Double
        /// The most that can be unsent of what was dirtied, in bytes; nil: no bound, nothing is written twice.
        public var workingSet: Double?

        public init(size: Double, dirtyRate: PiecewiseConstant, eventSize: Double = 4096, workingSet: Double? = nil) {
            (self.size, self.dirtyRate, self.eventSize) = (size, dirtyRate, eventSize)
            self.workingSet = workingSet
        }
    }

    public var containers: [Container]
    /// b(t): bytes a second that reach the destination.
    public var bandwidth: PiecewiseConstant
    /// o: what an event costs beside its bytes, in milliseconds.
    public var eventOverhead = 0.0
    /// RTT, context, switch and resume together, in milliseconds.
    public var fixed = 0.0

    public init(_ containers: [Container], bandwidth: PiecewiseConstant) {
        (self.containers, self.bandwidth) = (containers, bandwidth)
    }

    /// λ in the mean from the begin to an instant in milliseconds, with what the events cost.
    public func load(until instant: Double) -> Double {
        let capacity = bandwidth.integral(from: 0, to: instant)
        return containers.reduce(0) { sum, container in
            let dirtied = container.dirtyRate.integral(from: 0, to: instant)
            return sum + dirtied / capacity + eventOverhead * dirtied / container.eventSize / instant
        }
    }

    /// Mirrors until `handover`, above 0 and in milliseconds, and hands over.
    public func run(until handover: Double) -> MirrorOutcome {
        var queue = MirrorQueue(bandwidth: bandwidth, overhead: eventOverhead, containers: containers.count)
        var inSync: Double?
        var coalesced = 0
        for (index, container) in containers.enumerated() { queue.add(0, container.size, index, isCopy: true) }
        // The next event of each container.
        var arrivals = containers.map { $0.dirtyRate.instant(of: $0.eventSize, since: 0) }
        var lastArrivals = containers.map { _ in 0.0 }
        while let index = arrivals.indices.min(by: { arrivals[$0] < arrivals[$1] }), arrivals[index] <= handover {
            let (container, arrival) = (containers[index], arrivals[index])
            if inSync == nil, queue.end <= arrival { inSync = queue.end }
            let room = (container.workingSet ?? .infinity) - queue.unsentEvents(of: index, at: arrival)
            if room > 0 {
                queue.add(arrival, min(container.eventSize, room), index)
            } else {
                coalesced += 1
            }
            lastArrivals[index] = arrival
            arrivals[index] = container.dirtyRate.instant(of: container.eventSize, since: arrival)
        }
        if inSync == nil, queue.end <= handover { inSync = queue.end }
        // What was dirtied since the last whole event is one more, together with what is still unsent.
        for (index, container) in containers.enumerated() {
            let room = (container.workingSet ?? .infinity) - queue.unsentEvents(of: index, at: handover)
            let rest = min(container.dirtyRate.integral(from: lastArrivals[index], to: handover), room)
            if rest > 0 { queue.add(handover, rest, index) }
        }
        return MirrorOutcome(
            queue, handover: handover, inSync: inSync, load: load(until: handover), coalesced: coalesced, fixed: fixed)
    }
}

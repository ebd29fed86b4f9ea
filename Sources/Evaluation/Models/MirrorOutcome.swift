// What came of a mirror in the queue model.

/// A mirror from its begin to the handover.
public struct MirrorOutcome: Sendable {
    public struct Container: Sendable, Hashable, Codable {
        /// V in bytes: the first copy and every event.
        public var volume: Double
        /// U: bytes unsent at the handover, those of an event that is being sent as a whole.
        public var outstanding: Double
        /// In milliseconds.
        public var downtime: Double
    }

    public let containers: [Container]
    /// First instant at which nothing known to be dirty was unsent, in milliseconds; nil: there was none.
    public let inSync: Double?
    /// λ in the mean until the handover, with what the events cost.
    public let load: Double
    /// Events that added nothing, since all pages they could be of were waiting already.
    public let coalesced: Int
    private let events: [[MirrorQueue.Event]]

    /// From λ = 1 on it does not: the mirror's age grows, to that of the working set at most.
    public var keepsUp: Bool { load < 1 }
    /// Of all containers together, in bytes.
    public var volume: Double { containers.reduce(0) { $0 + $1.volume } }

    init(_ queue: MirrorQueue, handover: Double, inSync: Double?, load: Double, coalesced: Int, fixed: Double) {
        (self.inSync, self.load, self.coalesced, events) = (inSync, load, coalesced, queue.events)
        containers = queue.events.map { events in
            let unsent = events.filter { $0.finish > handover }
            return Container(
                volume: events.reduce(0) { $0 + $1.bytes }, outstanding: unsent.reduce(0) { $0 + $1.bytes },
                downtime: max(0, (events.last?.finish ?? 0) - handover) + fixed)
        }
    }

    /// How old a container's mirror is at an instant of the run: the time since the oldest change that is unsent; 0 if
    /// there is none. Before the first copy is sent, the time since the begin. All in milliseconds.
    public func age(of container: Int, at instant: Double) -> Double {
        // Arrivals and finishes both ascend.
        var (low, high) = (0, events[container].count)
        while low < high {
            let middle = (low + high) / 2
            if events[container][middle].finish > instant { high = middle } else { low = middle + 1 }
        }
        guard low < events[container].count else { return 0 }
        return max(0, instant - events[container][low].arrival)
    }
}

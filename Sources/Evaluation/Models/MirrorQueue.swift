// The events of a mirror in the order in which they are sent.

/// First in, first out, over one link.
struct MirrorQueue {
    struct Event {
        /// Milliseconds.
        var arrival: Double
        /// When it is sent, in milliseconds.
        var finish: Double
        var bytes: Double
        var isCopy: Bool
    }

    let bandwidth: PiecewiseConstant
    let overhead: Double
    /// Of each container, in the order of arrival, which is that of finishing too.
    private(set) var events: [[Event]]
    /// f of the last event.
    private(set) var end = 0.0
    /// Of each container: how many of the first events are known to be sent, and the bytes of the later ones.
    private var sent: [Int]
    private var waiting: [Double]

    init(bandwidth: PiecewiseConstant, overhead: Double, containers: Int) {
        (self.bandwidth, self.overhead) = (bandwidth, overhead)
        events = Array(repeating: [], count: containers)
        sent = Array(repeating: 0, count: containers)
        waiting = Array(repeating: 0, count: containers)
    }

    /// f_k = max(a_k, f_{k-1}) + s_k/b + o.
    mutating func add(_ arrival: Double, _ bytes: Double, _ container: Int, isCopy: Bool = false) {
        end = bandwidth.instant(of: bytes, since: max(arrival, end)) + (isCopy ? 0 : overhead)
        events[container].append(Event(arrival: arrival, finish: end, bytes: bytes, isCopy: isCopy))
        if !isCopy { waiting[container] += bytes }
    }

    /// Bytes of a container's events that are not sent as a whole; instants must not go back from call to call.
    mutating func unsentEvents(of container: Int, at instant: Double) -> Double {
        while sent[container] < events[container].count, events[container][sent[container]].finish <= instant {
            let event = events[container][sent[container]]
            if !event.isCopy { waiting[container] -= event.bytes }
            sent[container] += 1
        }
        return waiting[container]
    }
}

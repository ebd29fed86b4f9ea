// Whether a client had to wait for TCP's retransmission timer: the price of a frame that a migration lost.
import LinuxKernel

/// A change of a connection's retransmission counters, noticed at most one look after it happened.
public struct RetransmissionEvent: Sendable, Codable {
    /// CLOCK_MONOTONIC nanoseconds.
    public var at: Int64
    /// Retransmission timeouts since the last event.
    public var timeouts: Int
    /// Segments sent again since the last event, for whatever reason.
    public var retransmitted: Int
    /// The connection's retransmission timer after it, milliseconds.
    public var timer: Double
}

/// Follows a connection's counters.
struct RetransmissionWatch {
    private(set) var events: [RetransmissionEvent] = []
    private var last: TCPInfo?

    init(_ info: TCPInfo?) { last = info }

    mutating func look(_ info: TCPInfo?) {
        guard let info else { return }
        if let last, info.timeouts != last.timeouts || info.retransmitted != last.retransmitted {
            events.append(
                RetransmissionEvent(
                    at: monotonicNow(), timeouts: Int(info.timeouts &- last.timeouts),
                    retransmitted: Int(info.retransmitted &- last.retransmitted),
                    timer: Double(info.retransmissionTimeout) / 1000))
        }
        last = info
    }
}

extension Verdict {
    /// That no answer waited for a timer. A blackout longer than the client's timer lets it fire, whatever is done
    /// with the frames: such timeouts are told but not held against the migration. What counts is that none fired
    /// outside a blackout, and that each connection on which something was due before a release has an answer within
    /// 150 ms of it, before any timer begun then could have fired (TCP_RTO_MIN is 200 ms).
    ///
    /// - Parameters:
    ///   - events: of all connections.
    ///   - connections: each one's requests.
    ///   - blackouts: freeze begun to release of each migration.
    static func noRetransmissionWait(
        _ events: [RetransmissionEvent], _ connections: [[ProbeRequest]], blackouts: [ClosedRange<Int64>]
    ) -> Verdict {
        // Timeouts are noticed up to a period late, and the release reaches the client a little after it.
        let inside = events.filter { event in
            blackouts.contains { $0.lowerBound <= event.at && event.at <= $0.upperBound + 5_000_000 }
        }.reduce(0) { $0 + $1.timeouts }
        let outside = events.reduce(0) { $0 + $1.timeouts } - inside
        var slowest: Int64 = 0
        for release in blackouts.map(\.upperBound) {
            for requests in connections {
                let waiting = requests.lazy.filter {
                    $0.intended <= release && ($0.answered == 0 || $0.answered > release)
                }.map { $0.answered == 0 ? Int64.max : $0.answered }
                if let first = waiting.min() { slowest = max(slowest, first - release) }
            }
        }
        var text = outside == 0 ? "none fired" : "\(outside) fired"
        if inside > 0 { text += ", \(inside) inside a blackout longer than the timer" }
        let waited = slowest > 150_000_000
        if waited {
            text +=
                slowest > 1_000_000_000_000
                ? ", no answer after a release" : ", first answer \(slowest / 1_000_000) ms after a release"
        }
        return Verdict("no wait for a retransmission timeout", outside == 0 && !waited, text)
    }
}

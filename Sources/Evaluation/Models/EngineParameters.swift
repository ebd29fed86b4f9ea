// What an engine costs whatever it moves, and what grows with the state.

/// Costs of an engine beside the transfer. The defaults are Apus's own, from docs/performance.md: two hosts that share
/// two cores. What was measured there contains a scan, the context's transfer and a round trip of 0.1 ms; these are
/// taken out of the fixed parts, so that nothing counts twice.
public struct EngineParameters: Sendable, Hashable, Codable {
    /// Bytes of everything but memory that is sent in the freeze: registers, descriptors, settings. An assumption, not
    /// a measurement: the image is written in 0.15 ms at 1 Gbit/s, in which 18 KB can leave.
    public var contextBytes = 16_384.0
    /// From the freeze until the source waits for the destination's release, in milliseconds. 1.852: `wait for release`
    /// begins at 2.211 in the median, redis by MiGrror, 30 moves ("Steps of the freeze"), less 0.122 for the scan of
    /// 256 MiB, 0.137 for the context at 1 Gbit/s and 0.1 for the round trip.
    public var freezeFixed = 1.852
    /// From there to the first instruction on the destination, in milliseconds. 1.358: `release` begins at 3.548 and
    /// takes 0.021, less 2.211; the sum is the median downtime of `make bench`, 3.57.
    public var resume = 1.358
    /// Growth of the freeze with the state, in milliseconds a GiB. 0.49: "growth", dirtier of 16 MiB to 8 GiB.
    public var scanPerGiB = 0.49
    /// Bytes sent with each page that was dirtied anew. 16: address and count, if no neighbour is dirty (wire format).
    /// The first copy goes in long runs, where this is nothing.
    public var pageOverhead = 16.0
    /// The most that the page stream carries in bytes a second. 7.5 Gbit/s: "page stream, cold, unlimited".
    public var streamLimit = 7.5e9 / 8
    /// Payload's share of a link's rate. 1448 of the 1514 bytes of an Ethernet frame full of TCP with time stamps; on a
    /// link of 1 Gbit/s the stream reaches all that iperf3 does ("page stream", 1.000).
    public var linkEfficiency = 1448.0 / 1514
    /// Round trips in the freeze beside those inside the fixed parts: the handover's question and its answer.
    public var roundTrips = 1.0
    /// Before the freeze, passes follow each other until one takes less than this, in milliseconds (the engine's
    /// `RunUp`).
    public var runUp = 1.0
    /// Time from one sync of the mirror to the next in milliseconds. 38: 26 syncs a second, redis mirrored at half its
    /// saturated rate ("p99 while mirrored").
    public var syncInterval = 38.0

    /// A server with connections, `redis` in docs/performance.md.
    public init() {}

    /// A process without connections: `dirtier` of 16 MiB on an unlimited link, 1.67 ms in the median, less 0.008 for
    /// the scan, 0.017 for the context and 0.1 for the round trip. The table does not split it; it is split here as
    /// redis's is.
    public static let plain = {
        var parameters = EngineParameters()
        let share = 1.545 / (parameters.freezeFixed + parameters.resume)
        parameters.freezeFixed *= share
        parameters.resume *= share
        return parameters
    }()

    /// The scan of a state in the freeze, in milliseconds.
    public func scan(_ size: Double) -> Double { scanPerGiB * size / Double(1 << 30) }

    /// Everything in the freeze but bytes of memory, in milliseconds.
    ///
    /// - Parameters:
    ///   - size: the state in bytes.
    ///   - bandwidth: bytes a second that reach the destination.
    ///   - roundTrip: milliseconds.
    public func fixed(size: Double, bandwidth: Double, roundTrip: Double) -> Double {
        freezeFixed + scan(size) + sendingTime(contextBytes, bandwidth) + roundTrips * roundTrip + resume
    }

    /// Bytes on the wire for dirty pages.
    public func wire(_ dirty: Double) -> Double { dirty * (1 + pageOverhead / pageBytes) }

    /// What reaches the destination of a link's bytes a second.
    public func goodput(_ link: Double) -> Double { min(link * linkEfficiency, streamLimit) }
}

/// A page of x86-64.
let pageBytes = 4096.0

// How the clocks of the two hosts differ, and what the container's have to show there so that they never go back.
import LinuxKernel

/// The destination's clocks as the source knows them. Nanoseconds.
struct HostClocks {
    /// Both hosts read one clock.
    private(set) var areShared = true
    /// What the destination's CLOCK_MONOTONIC shows more than this host's.
    private(set) var offset: Int64 = 0
    /// What the container's clocks show besides this host's: it came from a host with other ones.
    private(set) var ofContainer = Clocks.none
    /// What the container's clocks have to show besides the destination's; nil: nothing.
    private(set) var ofContainerThere: Clocks?
    /// How exactly the offset is known, in the report's words.
    private(set) var words = "shared"

    private static let probes = 9

    /// Finds out how the destination's clocks differ.
    mutating func compare(shared: Bool, container pid: Int32, over connection: Connection) throws {
        ofContainer = try Clocks.offsets(of: pid) - Clocks.offsets()
        areShared = shared
        if shared {
            ofContainerThere = ofContainer == .none ? nil : ofContainer
        } else {
            ofContainerThere = try measure(over: connection)
        }
    }

    /// Clocks that are not shared drift apart while memory is copied: measures the offset again.
    mutating func refresh(over connection: Connection) throws { _ = try measure(over: connection) }

    /// - Returns: what the container's clocks have to show besides the destination's so that they are not behind: up to
    ///   one round trip more than here.
    private mutating func measure(over connection: Connection) throws -> Clocks {
        var best = Int64.max, result = Clocks.none
        for _ in 0..<Self.probes {
            var probe = WireClockProbe()
            probe.sent = monotonicNow()
            try connection.send(.clockProbe, probe)
            let answer: Checked<WireClockProbe> = try connection.expect(.clockProbe)
            let now = Clocks.now(), trip = now.monotonic - probe.sent
            if trip < best {
                best = trip
                offset = answer.answered - (probe.sent + now.monotonic) / 2
                result =
                    ofContainer + now - Clocks(monotonic: answer.answered, boottime: answer.answeredBoottime)
            }
        }
        words = "estimated ± \(best / 2000) µs"
        return result
    }

    /// What the container's clocks show now; nil: they are the hosts', which both read.
    var shownNow: Clocks? { ofContainerThere == nil ? nil : Clocks.now() + ofContainer }

    /// By how much the move has the container's CLOCK_MONOTONIC fall behind the hosts'; nil: they read one clock, or nothing was
    /// measured.
    var lag: Int64? {
        guard let ofContainerThere, !areShared else { return nil }
        return ofContainer.monotonic - ofContainerThere.monotonic - offset
    }
}

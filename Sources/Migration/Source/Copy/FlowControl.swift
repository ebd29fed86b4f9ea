// How much of what was sent is still on its way, and how fast the way is. It is told counts and instants, and reads
// neither a clock nor a socket.

/// What a copy knows of the way to its destination. Instants are CLOCK_MONOTONIC nanoseconds.
struct FlowControl {
    /// A pass that has not been answered.
    private struct Pass {
        var number: UInt64
        var bytes: UInt64
        /// When its first byte was given to the kernel, and its last.
        var began: Int64, sent: Int64
    }
    private var unanswered: [Pass] = []
    /// The number of the last pass; they count from 1.
    private(set) var lastNumber: UInt64 = 0
    /// Bytes a second that reached the destination, as last seen.
    private(set) var throughput = 100e6
    /// From a pass's last byte to its answer, at least, of all so far: what the way takes when nothing is waiting.
    private var shortestAnswer: Int64?
    /// When the link will have taken all that was sent, by its rate.
    private var linkBusyUntil: Int64 = 0
    /// When the last answer came.
    private var answeredAt: Int64 = 0

    /// By how many nanoseconds the link or an answer may be late before no further sync is made.
    private static let longestLag: Int64 = 1_000_000
    /// Less than this is no measure of a link's rate.
    private static let leastMeasured: UInt64 = 262_144

    /// Passes that are under way.
    var underWay: Int { unanswered.count }

    /// Everything of a pass but its end has been given to the kernel.
    ///
    /// - Returns: its number.
    mutating func sent(_ bytes: UInt64, began: Int64, at now: Int64) -> UInt64 {
        lastNumber += 1
        unanswered.append(Pass(number: lastNumber, bytes: bytes, began: began, sent: now))
        linkBusyUntil = max(linkBusyUntil, now) + Int64(Double(bytes) / max(throughput, 1) * 1e9)
        return lastNumber
    }

    /// The destination has applied this pass, and all before it.
    mutating func answered(_ number: UInt64, at now: Int64) {
        // Measured by what has arrived: the socket takes megabytes at once that are not sent yet.
        if let first = unanswered.first, first.bytes > Self.leastMeasured {
            throughput = Double(first.bytes) / (Double(now - max(first.began, answeredAt)) / 1e9)
        }
        answeredAt = now
        if let pass = unanswered.last(where: { $0.number <= number }) {
            shortestAnswer = min(shortestAnswer ?? .max, now - pass.sent)
        }
        unanswered.removeAll { $0.number <= number }
    }

    /// No answer is going to come to what is under way.
    mutating func forget() { unanswered = [] }

    /// Whether syncs wait: for the link, by its rate, or at the destination, since one has not been answered though it
    /// would have been if nothing were before it. Another one would only wait longer, and the freeze for all of them.
    func isBehind(at now: Int64) -> Bool {
        guard let first = unanswered.first else { return false }
        guard let shortestAnswer else { return true }
        return linkBusyUntil - now > Self.longestLag || now - first.sent > shortestAnswer + Self.longestLag
    }
}

// What peers may take up on this host: memory by the length of their frames, sessions by their number.
import LinuxKernel
import Memory
import Synchronization

extension FrameKind {
    /// Bytes of the longest payload that is accepted.
    var longest: Int {
        switch self {
        // A log and the content of queues travel in these.
        case .stage, .handover, .threads: 256 << 20
        // As it came and as it is decoded, it has room in what a session may take. `QueueLimit` is what sockets may hold.
        case .promise: 304 << 20
        case .layout: 64 << 20
        case .offer: 2 << 20
        case .pages: PageCodec.longestBatch
        case .discard, .files: 1 << 20
        case .released: 256 << 10
        default: 64 << 10
        }
    }
}

/// Sessions and the memory of their frames, all together, of one process.
final class SessionBounds: Sendable {
    static let shared = SessionBounds(sessions: 128, bytes: 1 << 30)

    /// Bytes that one session may take.
    static let ofOneSession = 640 << 20

    private let sessions: Int, bytes: Int
    private let taken = Mutex((sessions: 0, bytes: 0))

    init(sessions: Int, bytes: Int) { (self.sessions, self.bytes) = (sessions, bytes) }

    /// Counts a session from another host, as long as the object lives.
    final class Place: Sendable {
        private let bounds: SessionBounds
        fileprivate init(_ bounds: SessionBounds) { self.bounds = bounds }
        deinit { bounds.taken.withLock { $0.sessions -= 1 } }
    }

    /// - Throws: when there are as many as can be.
    func enter() throws -> Place {
        try taken.withLock { taken in
            guard taken.sessions < sessions else {
                throw MigrationError(
                    .refused, "this host serves \(sessions) sessions with other hosts already",
                    advice: "try again when some have ended")
            }
            taken.sessions += 1
        }
        return Place(self)
    }

    func take(_ more: Int) throws {
        try taken.withLock { taken in
            guard more <= bytes - taken.bytes else {
                throw MigrationError(
                    .refused, "the messages of all sessions take more than \(bytes >> 20) MiB on this host",
                    advice: "try again when some have ended")
            }
            taken.bytes += more
        }
    }
    func give(_ bytes: Int) { taken.withLock { $0.bytes -= bytes } }
}

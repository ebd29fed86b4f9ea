// What goes out on a connection: the frames of its session, and a sign of life between them.
import Glibc
import LinuxKernel
import Synchronization

/// The outgoing half of a connection, shared by the session's thread, which sends frames, and a thread that sends a
/// heartbeat twice a second. So an agent whose session is busy with a long step is heard all the same, and one that is
/// stopped is not.
final class Outgoing: Sendable {
    private struct State {
        /// Nil once the connection is closed.
        var descriptor: Int32?
        /// What is left of a frame that was begun, or given up before it was: it goes ahead of everything else, so that
        /// the other side never finds a frame cut short.
        var unsent: ArraySlice<UInt8> = []
    }
    private let state: Mutex<State>

    init(_ descriptor: FileDescriptor) { state = Mutex(State(descriptor: descriptor.number)) }

    /// Called before the descriptor is closed.
    func close() { state.withLock { $0.descriptor = nil } }

    /// Sends these bytes, which are a whole frame, after what is left of earlier ones.
    ///
    /// - Parameter some: sends as many of the bytes as the socket takes, and waits until it takes any. What is left when
    ///   it throws is kept for the next call.
    func send(_ pieces: [UnsafeRawBufferPointer], _ some: ([UnsafeRawBufferPointer]) throws -> Int) throws {
        try state.withLock { state in
            var rest = pieces.filter { !$0.isEmpty }[...]
            do {
                while !state.unsent.isEmpty {
                    let count = try state.unsent.withUnsafeBytes { try some([$0]) }
                    state.unsent = state.unsent.dropFirst(count)
                }
                while !rest.isEmpty {
                    var count = try some(Array(rest))
                    while let first = rest.first, count >= first.count {
                        count -= first.count
                        rest.removeFirst()
                    }
                    if count > 0 { rest[rest.startIndex] = .init(rebasing: rest[rest.startIndex][count...]) }
                }
            } catch {
                for piece in rest { state.unsent += piece }
                throw error
            }
        }
    }

    /// Starts the thread of the heartbeats; it ends with the connection.
    func startBeating() throws(KernelError) {
        try OwnThread.start("apus-heartbeat") { [self] in
            // The session's thread has real-time priority in the freeze, and must not keep this one from running.
            ThreadPriority.realTime.apply()
            while beat() { usleep(Self.interval) }
        }
    }
    private static let interval: UInt32 = 500_000
    private static let heartbeat = ArraySlice(Connection.header(.heartbeat, length: 0))

    /// Sends a heartbeat, or more of what is left of a frame, without waiting.
    ///
    /// - Returns: whether the connection is still open.
    private func beat() -> Bool {
        // Whoever holds the lock is sending: that is a sign of life.
        state.withLockIfAvailable { state in
            guard let descriptor = state.descriptor else { return false }
            if state.unsent.isEmpty { state.unsent = Self.heartbeat }
            let count = state.unsent.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
            }
            if count > 0 { state.unsent = state.unsent.dropFirst(count) }
            return true
        } ?? true
    }
}

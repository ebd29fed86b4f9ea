// The inputs of both targets that run sessions: lists of frames, each a kind (one byte), a length (two) and a payload.
import Glibc
import SwiftProtobuf
import Synchronization

@testable import Migration

enum Frames {
    static func split(_ input: UnsafeRawBufferPointer) -> [(kind: UInt8, payload: [UInt8])] {
        var frames: [(UInt8, [UInt8])] = [], at = 0
        while at + 3 <= input.count {
            let length = Int(input[at + 1]) | Int(input[at + 2]) << 8
            let end = min(at + 3 + length, input.count)
            frames.append((input[at], [UInt8](input[at + 3..<end])))
            at = end
        }
        return frames
    }

    static func make(_ kind: FrameKind, _ message: some Message) throws -> [UInt8] {
        make(kind, try message.serializedBytes() as [UInt8])
    }
    static func make(_ kind: FrameKind, _ bytes: [UInt8]) -> [UInt8] { make(UInt8(kind.rawValue), bytes) }
    static func make(_ kind: UInt8, _ bytes: [UInt8]) -> [UInt8] {
        [kind, UInt8(bytes.count & 0xff), UInt8(bytes.count >> 8)] + bytes
    }

    /// As it goes over the wire. What does not fit into the socket is never read.
    ///
    /// - Returns: whether all of it was taken.
    static func send(_ kind: UInt8, _ payload: [UInt8], to socket: Int32) -> Bool {
        let header = [UInt32(payload.count).littleEndian, UInt32(kind).littleEndian]
        let bytes = header.withUnsafeBytes { Array($0) } + payload
        return Glibc.send(socket, bytes, bytes.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL)) == bytes.count
    }

    /// This boot in the place of "here": no input could guess it.
    static func own(_ boot: String) -> String { boot == "here" ? (try? bootIdentity()) ?? "" : boot }

    /// The message in a payload, changed; a payload that is none stays as it is.
    static func changed<M: Message>(_ payload: [UInt8], _ type: M.Type, _ change: (inout M) -> Void) -> [UInt8] {
        guard var message = try? M(serializedBytes: payload) else { return payload }
        change(&message)
        return (try? message.serializedBytes()) ?? payload
    }
}

/// Tells a peer's thread that the session is over.
final class Flag: Sendable {
    private let value = Atomic(false)
    func set() { value.store(true, ordering: .releasing) }
    var isSet: Bool { value.load(ordering: .acquiring) }
}

/// Which frames sessions took from their peers, by the state in which they came.
enum Handled {
    // Sessions, and what they ask with, run one after the other.
    nonisolated(unsafe) private static var counts: [SessionState?: [FrameKind: Int]] = [:]

    static func watch() {
        Connection.witness = { state, kind in counts[state, default: [:]][kind, default: 0] += 1 }
    }

    /// Ends the program as failed if of many sessions none came to a promise: then the inputs do not fit the protocol
    /// any more, and fuzzing them finds nothing.
    static func requirePromises(of sessions: Int) {
        let promises = counts.values.reduce(0) { $0 + ($1[.promise] ?? 0) + ($1[.released] ?? 0) }
        if sessions < 1000 || promises > 0 { return }
        print("none of \(sessions) sessions came as far as a promise: the inputs do not fit the protocol")
        fflush(nil)
        _exit(1)
    }

    /// Every row of the table for this sender, those that no session has come to as well.
    static func show(from sender: Side) {
        print("frames that were taken, by the state in which they came:")
        let states: [SessionState?] = [nil] + SessionState.allCases
        for state in states {
            let kinds = FrameKind.allCases.filter { SessionTable.next(state, $0, from: sender) != nil }
            if kinds.isEmpty { continue }
            let words = kinds.map { "\($0) \(counts[state]?[$0] ?? 0)" }.joined(separator: ", ")
            print("  \(state?.rawValue ?? "nothing said"): \(words)")
        }
    }
}

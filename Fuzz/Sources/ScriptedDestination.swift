// The other end of a source's session: says what the input says, when the input says it, and reads what the source
// sends.
import Foundation
import Glibc
import LinuxKernel

@testable import Migration

/// A step of an input. A frame of kind 0, which the protocol does not have, is an order to the script itself.
enum Order: UInt8 {
    /// Wait until the source has sent another frame of a kind; passes and clock probes are answered meanwhile as an
    /// honest destination does.
    case await
    /// The same without any answer.
    case awaitSilently
    /// The operator's wishes.
    case trigger, cancel
    /// The connection ends. What follows is for whoever asks over another one.
    case hangUp

    func bytes(_ kind: FrameKind? = nil) -> [UInt8] {
        Frames.make(0, [rawValue] + (kind.map { [UInt8($0.rawValue)] } ?? []))
    }
}

/// Used by its own thread until that has ended.
final class ScriptedDestination {
    private var script: ArraySlice<(kind: UInt8, payload: [UInt8])>
    private let control: MigrationControl
    private let resolution: MigrationControl.Resolution
    /// Milliseconds for which the source may say nothing that the script waits for.
    private let patience: Int32
    private var received: [UInt8] = []
    private var counts: [UInt32: Int] = [:]
    private var answersHonestly = false
    private(set) var sawPromise = false

    init(
        _ script: [(kind: UInt8, payload: [UInt8])], _ control: MigrationControl,
        _ resolution: MigrationControl.Resolution, patience: Int32
    ) {
        (self.script, self.control, self.resolution, self.patience) = (script[...], control, resolution, patience)
    }

    /// Plays the script to the session's end.
    func run(_ socket: FileDescriptor, _ listener: FileDescriptor, until isOver: Flag) {
        play(socket, until: isOver)
        if !sawPromise { return }
        while !isOver.isSet {
            // When nobody says any more what became of it, an operator does.
            if script.isEmpty { control.resolve(resolution) }
            var request = pollfd(fd: listener.number, events: Int16(POLLIN), revents: 0)
            guard poll(&request, 1, 1) > 0, let next = try? PeerAddress.accept(on: listener) else { continue }
            received = []
            play(next, until: isOver)
        }
    }

    private func play(_ socket: FileDescriptor, until isOver: Flag) {
        while let (kind, payload) = script.popFirst() {
            let order = kind == 0 ? payload.first.flatMap(Order.init(rawValue:)) : nil
            if order == .hangUp { break }
            guard follow(order, kind, payload, socket) else {
                // The rest was for this connection.
                while let (kind, payload) = script.popFirst(), kind != 0 || payload.first != Order.hangUp.rawValue {}
                break
            }
        }
        finish(socket, until: isOver)
    }

    /// False: nothing more can be said here.
    private func follow(_ order: Order?, _ kind: UInt8, _ payload: [UInt8], _ socket: FileDescriptor) -> Bool {
        switch order {
        case nil: return Frames.send(kind, payload, to: socket.number)
        case .await, .awaitSilently:
            answersHonestly = order == .await
            return wait(for: UInt32(payload.dropFirst().first ?? 0), socket)
        case .trigger: control.triggerHandover()
        case .cancel: control.cancel()
        case .hangUp: return false
        }
        return true
    }

    /// False: the source has gone, or says nothing of the kind.
    private func wait(for kind: UInt32, _ socket: FileDescriptor) -> Bool {
        while (counts[kind] ?? 0) == 0 {
            if !take(socket, patience) {
                // It may wait for this side: silence lasts until somebody cancels, which nobody can after the promise.
                if !sawPromise { control.cancel() }
                return false
            }
        }
        counts[kind]! -= 1
        return true
    }

    private func finish(_ socket: FileDescriptor, until isOver: Flag) {
        answersHonestly = false
        if !control.isCancelled { shutdown(socket.number, Int32(SHUT_WR)) }
        while !isOver.isSet {
            var request = pollfd(fd: socket.number, events: Int16(POLLIN), revents: 0)
            if poll(&request, 1, 1) > 0, !take(socket, 0) { return }
            if sawPromise { shutdown(socket.number, Int32(SHUT_WR)) }
        }
    }

    /// Reads what the source has sent.
    ///
    /// - Returns: false if nothing came in time, or nothing will.
    private func take(_ socket: FileDescriptor, _ milliseconds: Int32) -> Bool {
        var request = pollfd(fd: socket.number, events: Int16(POLLIN), revents: 0)
        guard poll(&request, 1, milliseconds) > 0 else { return false }
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        let count = recv(socket.number, &chunk, chunk.count, Int32(MSG_DONTWAIT))
        guard count > 0 else { return false }
        received += chunk[..<count]
        while received.count >= 8 {
            let (length, kind) = received.withUnsafeBytes {
                (Int($0.loadUnaligned(as: UInt32.self)), $0.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
            }
            guard received.count >= 8 + length else { break }
            note(kind, Array(received[8..<8 + length]), socket)
            received.removeFirst(8 + length)
        }
        return true
    }

    private func note(_ kind: UInt32, _ payload: [UInt8], _ socket: FileDescriptor) {
        counts[kind, default: 0] += 1
        switch FrameKind(rawValue: kind) {
        case .promise: sawPromise = true
        case .passEnd? where answersHonestly:
            _ = Frames.send(UInt8(FrameKind.passApplied.rawValue), payload, to: socket.number)
        case .clockProbe? where answersHonestly:
            let answer = Frames.changed(payload, WireClockProbe.self) {
                ($0.answered, $0.answeredBoottime) = (monotonicNow(), monotonicNow())
            }
            _ = Frames.send(UInt8(kind), answer, to: socket.number)
        default: break
        }
    }
}

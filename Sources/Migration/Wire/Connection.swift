// A connection between two agents: frames of a kind and a length, messages in protobuf, page contents raw.
import CLinux
import Engine
import Foundation
import Glibc
import LinuxKernel
import SwiftProtobuf

/// What a frame holds. Numbers are never used twice.
enum FrameKind: UInt32, Sendable {
    case offer = 1, accepted, refused, clockProbe, stage, staged, layout, pages, discard, passEnd, passApplied
    case frozen, muted, handover, prepared, promise, released, retired, abort, inquiry, verdict, files, thawed, tree
}

/// A frame as it came; the payload is valid until the next one is received.
struct Frame {
    let kind: FrameKind
    let payload: UnsafeRawBufferPointer

    func message<M: Message>(_ type: M.Type = M.self) throws -> M {
        do { return try M(serializedBytes: [UInt8](payload)) } catch {
            throw MigrationError.protocolViolation("a \(kind) message that cannot be read (\(error))")
        }
    }
}

/// One side of a session. Used by one thread.
public final class Connection {
    /// Longest payload that is accepted.
    static let payloadLimit = 256 << 20
    private static let headerSize = 8

    let descriptor: FileDescriptor
    /// Bytes sent so far, headers included.
    private(set) var bytesSent: UInt64 = 0
    private var buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 << 20, alignment: 4096)
    /// The other side, for messages.
    var peer = "the other host"
    /// Asked every 50 ms while waiting; throws to end the wait.
    var whileWaiting: () throws -> Void = {}

    /// Takes over a connected stream socket.
    public init(_ descriptor: FileDescriptor) throws(KernelError) {
        self.descriptor = descriptor
        var one: Int32 = 1
        setsockopt(descriptor.number, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
        setsockopt(descriptor.number, SOL_SOCKET, SO_KEEPALIVE, &one, 4)
        // A host that vanishes says nothing: without these a session would wait for it for hours.
        for (option, value) in [
            (TCP_USER_TIMEOUT, Self.silenceLimit * 1000), (TCP_KEEPIDLE, 5), (TCP_KEEPINTVL, 5), (TCP_KEEPCNT, 3),
        ] {
            var value = value
            setsockopt(descriptor.number, Int32(IPPROTO_TCP), option, &value, 4)
        }
        let flags = fcntl(descriptor.number, F_GETFL)
        try checkC(fcntl(descriptor.number, F_SETFL, flags | O_NONBLOCK), "making a connection non-blocking")
    }
    deinit { buffer.deallocate() }

    /// Seconds without a sign of the other host after which the connection counts as lost.
    private static let silenceLimit: Int32 = 20

    /// From now on a wait ends after so many seconds.
    func limit(seconds: Int64) {
        let deadline = monotonicNow() + seconds * 1_000_000_000
        whileWaiting = { [unowned self] in
            if monotonicNow() > deadline { throw MigrationError.disconnected(from: peer, "no answer in \(seconds) s") }
        }
    }

    /// Bounds the waits of `body`, besides what ends them anyway.
    func limiting<T>(seconds: Int64, _ body: () throws -> T) throws -> T {
        let before = whileWaiting
        limit(seconds: seconds)
        let limited = whileWaiting
        whileWaiting = {
            try before()
            try limited()
        }
        defer { whileWaiting = before }
        return try body()
    }

    // ---- Sending -------------------------------------------------------------------------------------------

    func send(_ kind: FrameKind, _ message: some Message) throws {
        let payload: [UInt8] = try message.serializedBytes()
        try payload.withUnsafeBytes { try send(kind, $0) }
    }

    func send(_ kind: FrameKind, _ payload: UnsafeRawBufferPointer) throws {
        guard payload.count <= Self.payloadLimit else {
            throw MigrationError.protocolViolation("a \(kind) message of \(payload.count) bytes is too long to send")
        }
        var header = (UInt32(payload.count).littleEndian, kind.rawValue.littleEndian)
        try withUnsafeMutableBytes(of: &header) { header in
            // SAFETY: sendmsg only reads from the buffers, which live for the call.
            let vectors = [
                iovec(iov_base: header.baseAddress, iov_len: header.count),
                iovec(iov_base: UnsafeMutableRawPointer(mutating: payload.baseAddress), iov_len: payload.count),
            ]
            try write(vectors)
        }
        bytesSent += UInt64(payload.count + Self.headerSize)
    }

    private func write(_ vectors: [iovec]) throws {
        var vectors = vectors[...], isBegun = false
        while let first = vectors.first {
            if first.iov_len == 0 {
                vectors.removeFirst()
                continue
            }
            var n = vectors.withUnsafeBufferPointer { vectors in
                var message = msghdr()
                message.msg_iov = UnsafeMutablePointer(mutating: vectors.baseAddress)
                message.msg_iovlen = vectors.count
                return sendmsg(descriptor.number, &message, Int32(MSG_NOSIGNAL))
            }
            if n < 0 {
                guard errno == EAGAIN || errno == EINTR else { throw lost("\(Errno(errno))") }
                // A frame cut short would leave the other side without the word that follows: why.
                try wait(POLLOUT, patience: isBegun ? Self.framePatience : 1)
                continue
            }
            isBegun = true
            while n > 0, let vector = vectors.first {
                if n >= vector.iov_len {
                    n -= vector.iov_len
                    vectors.removeFirst()
                } else {
                    vectors[vectors.startIndex] = iovec(iov_base: vector.iov_base + n, iov_len: vector.iov_len - n)
                    n = 0
                }
            }
        }
    }

    /// Bytes that the kernel has taken and not sent for the first time yet.
    var bytesUnsent: UInt64 {
        var value: Int32 = 0
        return clx_ioctl(descriptor.number, Self.CLXSIOCOUTQNSD, &value) < 0 ? 0 : UInt64(value)
    }
    /// include/uapi/linux/sockios.h.
    private static let CLXSIOCOUTQNSD: UInt = 0x894b

    // ---- Receiving -----------------------------------------------------------------------------------------

    /// Has anything arrived?
    var hasInput: Bool {
        var polled = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
        return poll(&polled, 1, 0) > 0
    }

    /// Waits up to `milliseconds` for something to arrive.
    func awaitInput(_ milliseconds: Int32) -> Bool {
        var polled = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
        return poll(&polled, 1, milliseconds) > 0
    }

    /// The next frame.
    func receive() throws -> Frame {
        var header: (UInt32, UInt32) = (0, 0)
        try withUnsafeMutableBytes(of: &header) { try read(into: $0) }
        let length = Int(UInt32(littleEndian: header.0))
        guard let kind = FrameKind(rawValue: UInt32(littleEndian: header.1)) else {
            throw MigrationError.protocolViolation("a frame of unknown kind \(header.1)")
        }
        guard length <= Self.payloadLimit else {
            throw MigrationError.protocolViolation("a \(kind) frame of \(length) bytes")
        }
        if length > buffer.count {
            buffer.deallocate()
            buffer = .allocate(byteCount: (length + 0xfffff) & ~0xfffff, alignment: 4096)
        }
        try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<length]))
        return Frame(kind: kind, payload: UnsafeRawBufferPointer(rebasing: buffer[..<length]))
    }

    /// The next frame, which has to be of this kind; the other side's refusal or abort is thrown.
    func expect<M: Message>(_ kind: FrameKind, _ type: M.Type = M.self) throws -> M {
        let frame = try receive()
        if frame.kind == kind { return try frame.message() }
        throw unexpected(frame, "\(kind)")
    }

    /// What a frame means that was not expected.
    func unexpected(_ frame: Frame, _ expected: String) -> any Error {
        switch frame.kind {
        case .refused:
            let refused = (try? frame.message(WireRefused.self)) ?? WireRefused()
            return MigrationError(
                .refused,
                "\(refused.host.isEmpty ? peer : refused.host) refuses: \(refused.reasons.joined(separator: "; "))",
                advice: refused.advice.isEmpty ? nil : refused.advice)
        case .abort:
            let abort = (try? frame.message(WireAbort.self)) ?? WireAbort()
            if abort.cancelled { return MigrationError.cancelled }
            return MigrationError(
                .failed, "\(peer) gave up: \(abort.reason)", advice: abort.advice.isEmpty ? nil : abort.advice)
        default: return MigrationError.protocolViolation("a \(frame.kind) message where \(expected) was expected")
        }
    }

    /// Says why this side gives up.
    func sendAbort(_ reason: MigrationError, neverRan: Bool = false) {
        var abort = WireAbort()
        (abort.reason, abort.neverRan, abort.advice) = (reason.message, neverRan, reason.advice ?? "")
        abort.cancelled = reason.kind == .cancelled
        try? send(.abort, abort)
    }

    /// Why a session really ended: when the connection broke, the other side may have said why before it closed it.
    func cause(of error: any Error) -> any Error {
        guard (error as? MigrationError)?.kind == .unreachable else { return error }
        whileWaiting = { throw error }
        while let frame = try? receive() {
            if frame.kind == .abort || frame.kind == .refused { return unexpected(frame, "") }
        }
        return error
    }

    private func read(into target: UnsafeMutableRawBufferPointer) throws {
        var rest = target
        while !rest.isEmpty {
            let n = recv(descriptor.number, rest.baseAddress, rest.count, 0)
            if n == 0 { throw lost("it was closed there") }
            if n < 0 {
                guard errno == EAGAIN || errno == EINTR else { throw lost("\(Errno(errno))") }
                try wait(POLLIN)
                continue
            }
            rest = UnsafeMutableRawBufferPointer(rebasing: rest[n...])
        }
    }

    private func lost(_ why: String) -> MigrationError { .disconnected(from: peer, why) }

    /// Intervals of 50 ms that a begun frame may stand still before a wish to end is heard.
    private static let framePatience = 40

    private func wait(_ events: Int32, patience: Int = 1) throws {
        var polled = pollfd(fd: descriptor.number, events: Int16(events), revents: 0)
        for _ in 0..<patience where poll(&polled, 1, 50) != 0 { return }
        try whileWaiting()
    }
}

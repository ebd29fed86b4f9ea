// A connection between two agents: frames of a kind and a length, messages in protobuf, page contents raw.
import CLinux
import Engine
import Foundation
import Glibc
import LinuxKernel
import SwiftProtobuf

/// What a frame holds. Numbers are never used twice.
enum FrameKind: UInt32, Sendable, CaseIterable {
    case offer = 1, accepted, refused, clockProbe, stage, staged, layout, pages, discard, passEnd, passApplied
    case frozen, muted, handover, prepared, promise, released, retired, abort, inquiry, verdict, files, thawed, tree
    case threads = 190
    /// A sign of life, at any time in either direction: nobody sees it but the receiving connection.
    case heartbeat = 180
}

/// A frame as it came; the payload is valid until the next one is received.
struct Frame {
    let kind: FrameKind
    let payload: UnsafeRawBufferPointer
    /// Takes memory for what is read from it.
    fileprivate let connection: Connection

    /// The message in it, which is what the protocol allows.
    func message<M: CheckedMessage>(_ type: M.Type = M.self) throws -> Checked<M> {
        try Checked(decoding: payload, taking: connection.take)
    }
}

/// One side of a session. Used by one thread.
public final class Connection {
    private static let headerSize = 8
    private static let bufferSize = 2 << 20

    let descriptor: FileDescriptor
    /// Which end of the connection this is.
    let side: Side
    /// Where the session stands, by the frames that went over so far (`SessionTable`).
    private(set) var state: SessionState?
    /// The handover waits for a trigger, which may take as long as it likes to come.
    var waitsForTrigger = false
    private let outgoing: Outgoing
    /// Bytes sent so far, headers included.
    private(set) var bytesSent: UInt64 = 0
    private var buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bufferSize, alignment: 4096)
    /// Bytes counted for this session beyond the first buffer.
    private var taken = 0
    /// When the frame that is on its way has to be there; nil: nobody decides by a timeout.
    var deadline: Int64?
    /// The other side, for messages.
    var peer = "the other host"
    /// Asked every `interval` while waiting; throws to end the wait.
    var whileWaiting: () throws -> Void = {}
    /// Milliseconds.
    var interval: Int32 = 50
    private var askedAt = monotonicNow()

    /// Takes over a connected stream socket.
    init(_ descriptor: FileDescriptor, as side: Side) throws(KernelError) {
        self.descriptor = descriptor
        self.side = side
        outgoing = Outgoing(descriptor)
        var one: Int32 = 1
        setsockopt(descriptor.number, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
        setsockopt(descriptor.number, SOL_SOCKET, SO_KEEPALIVE, &one, 4)
        // A host that vanishes says nothing: without these a session would wait for it for hours.
        // What was lost is sent again soon after the network is back, not after ever longer pauses (thin streams by the
        // clock, all
        // others at least once a second where the kernel knows TCP_RTO_MAX_MS, Linux 6.15).
        for (option, value) in [
            (TCP_USER_TIMEOUT, Self.networkPatience * 1000), (TCP_KEEPIDLE, 5), (TCP_KEEPINTVL, 5), (TCP_KEEPCNT, 3),
            (TCP_THIN_LINEAR_TIMEOUTS, 1), (44 /* TCP_RTO_MAX_MS */, 1000),
        ] {
            var value = value
            setsockopt(descriptor.number, Int32(IPPROTO_TCP), option, &value, 4)
        }
        let flags = fcntl(descriptor.number, F_GETFL)
        try checkC(fcntl(descriptor.number, F_SETFL, flags | O_NONBLOCK), "making a connection non-blocking")
    }
    deinit {
        outgoing.close()
        buffer.deallocate()
        SessionBounds.shared.give(taken)
    }

    private var other: Side { side == .source ? .destination : .source }

    /// Counts memory for the frame that was received; it is given back with the next one.
    fileprivate func take(_ bytes: Int) throws {
        guard bytes <= SessionBounds.ofOneSession - taken else {
            throw MigrationError.protocolViolation(
                "messages that take more than \(SessionBounds.ofOneSession >> 20) MiB")
        }
        try SessionBounds.shared.take(bytes)
        taken += bytes
    }

    /// Sets the time by which a frame has to have gone over; a long one may take longer, at 50 KB/s at the least.
    private func beginFrame(_ length: Int = 0) {
        let patience = SessionTable.patience(state, waitsForTrigger: waitsForTrigger)
        deadline = patience.map { monotonicNow() + ($0 + Int64(length) / 50_000) * 1_000_000_000 }
    }

    private func checkDeadline() throws {
        if let deadline, monotonicNow() > deadline {
            throw lost("a message took too long while the session was \(Self.words(state))")
        }
    }

    /// Seconds without an acknowledgement from the other host's kernel after which the connection is lost for good.
    private static let networkPatience: Int32 = 20

    // ---- Signs of life -------------------------------------------------------------------------------------

    /// From now on the other side hears a heartbeat, whatever this one is busy with.
    func startBeating() throws(KernelError) { try outgoing.startBeating() }

    /// Seconds without a sign of the other agent after which the connection counts as lost; nil: it may be silent.
    var silenceLimit: Double?
    /// What a session allows before the promise.
    static let usualSilence = 3.0
    /// Seconds that a source may take before its offer: it waits as long as its plan says, an hour at most, for what is
    /// in the way and may pass, and is heard meanwhile.
    static let longestPreparation: Int64 = 3700
    /// When something was last received or sent.
    private var movedAt = monotonicNow()

    /// Seconds since anything came from the other agent. Its kernel may be alive though it is not, so acknowledgements
    /// do not count.
    var silence: Double {
        var bytes = [UInt8](repeating: 0, count: 104)
        var size = socklen_t(bytes.count)
        getsockopt(descriptor.number, Int32(IPPROTO_TCP), TCP_INFO, &bytes, &size)
        // tcpi_last_data_recv of struct tcp_info. A full buffer takes in nothing more, hence the second time.
        let received = bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 52, as: UInt32.self) }
        return min(Double(received) / 1000, Double(monotonicNow() - movedAt) / 1e9)
    }

    /// Nanoseconds between two checks after which this side counts as not having listened itself: the machine stood
    /// still, or a long step did not check.
    private static let ownStall: Int64 = 500_000_000
    private var checkedAt: Int64 = 0, listensSince: Int64 = 0

    /// - Throws: `disconnected` if the other agent has been silent for too long, all the while that this side listened.
    func checkSilence() throws {
        let now = monotonicNow()
        if now - checkedAt > Self.ownStall { listensSince = now }
        checkedAt = now
        guard let silenceLimit, Double(now - max(movedAt, listensSince)) / 1e9 > silenceLimit, silence > silenceLimit
        else { return }
        throw MigrationError.disconnected(from: peer, "no sign of it for \(Int(silenceLimit)) s")
    }

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

    /// - Parameter isFollowed: another frame comes at once, and goes into the same segment if there is room.
    func send(_ kind: FrameKind, _ payload: UnsafeRawBufferPointer, isFollowed: Bool = false) throws {
        guard payload.count <= kind.longest else {
            throw MigrationError(.failed, "a \(kind) message of \(payload.count) bytes is too long to send")
        }
        guard let next = SessionTable.next(state, kind, from: side) else {
            throw MigrationError(.failed, "a \(kind) message has no place in a session that is \(Self.words(state))")
        }
        state = next
        beginFrame(payload.count)
        bytesSent += UInt64(payload.count + Self.headerSize)
        // A frame that is given up while it waits for room still goes out, ahead of the next: the other side never
        // finds one cut short.
        try Self.header(kind, length: payload.count).withUnsafeBytes { header in
            try outgoing.send([header, payload]) { try sendSome($0, isFollowed: isFollowed) }
        }
    }

    private static func words(_ state: SessionState?) -> String { state?.rawValue ?? "just beginning" }

    static func header(_ kind: FrameKind, length: Int) -> [UInt8] {
        withUnsafeBytes(of: (UInt32(length).littleEndian, kind.rawValue.littleEndian)) { Array($0) }
    }

    /// Sends as many of the bytes as the socket takes; waits until it takes any.
    private func sendSome(_ pieces: [UnsafeRawBufferPointer], isFollowed: Bool) throws -> Int {
        // SAFETY: sendmsg only reads from the buffers, which live for the call.
        let vectors = pieces.map {
            iovec(iov_base: UnsafeMutableRawPointer(mutating: $0.baseAddress), iov_len: $0.count)
        }
        while true {
            let count = vectors.withUnsafeBufferPointer { vectors in
                var message = msghdr()
                message.msg_iov = UnsafeMutablePointer(mutating: vectors.baseAddress)
                message.msg_iovlen = vectors.count
                let more = isFollowed ? Int32(MSG_MORE) : 0
                return sendmsg(descriptor.number, &message, Int32(MSG_NOSIGNAL) | more)
            }
            if count >= 0 {
                movedAt = monotonicNow()
                return count
            }
            guard errno == EAGAIN || errno == EINTR else { throw lost("\(Errno(errno))") }
            try wait(POLLOUT)
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

    /// Has a frame begun to arrive, or has the connection ended? Signs of life that came before are taken.
    var hasInput: Bool {
        let sign = Self.header(.heartbeat, length: 0)
        while true {
            var header = [UInt8](repeating: 0, count: Self.headerSize)
            let count = recv(descriptor.number, &header, header.count, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
            if count <= 0 { return count == 0 || errno != EAGAIN }
            if count < header.count { return false }
            if header != sign { return true }
            _ = recv(descriptor.number, &header, header.count, Int32(MSG_DONTWAIT))
            movedAt = monotonicNow()
        }
    }

    /// Waits up to `milliseconds` for a frame to begin to arrive.
    func awaitInput(_ milliseconds: Int32) throws -> Bool {
        var polled = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
        poll(&polled, 1, milliseconds)
        if hasInput { return true }
        try checkSilence()
        try checkDeadline()
        return false
    }

    /// For long steps that neither send nor receive: throws when a wish to end has come or the other side has gone.
    func hear() throws {
        try whileWaiting()
        try checkSilence()
        var polled = pollfd(fd: descriptor.number, events: 0x2000 /* POLLRDHUP */, revents: 0)
        if poll(&polled, 1, 0) > 0 { throw lost("it was closed there") }
    }

    /// The next frame, if the other side may send it now: whatever else it holds is not even read.
    func receive() throws -> Frame {
        // A peer that sends without a pause cannot keep a wish to end from being heard.
        try whileWaiting()
        return try receiveNext()
    }

    private func receiveNext() throws -> Frame {
        dropLastFrame()
        beginFrame()
        while true {
            if let frame = try receiveAny() { return frame }
            try checkDeadline()
        }
    }

    /// Nil: it was a sign of life.
    private func receiveAny() throws -> Frame? {
        var header: (UInt32, UInt32) = (0, 0)
        try withUnsafeMutableBytes(of: &header) { try read(into: $0) }
        let length = Int(UInt32(littleEndian: header.0))
        guard let kind = FrameKind(rawValue: UInt32(littleEndian: header.1)) else {
            throw MigrationError.protocolViolation("a frame of unknown kind \(header.1)")
        }
        if kind == .heartbeat, length == 0 {
            if state == nil { beginFrame() }
            return nil
        }
        guard let next = SessionTable.next(state, kind, from: other) else {
            throw MigrationError.protocolViolation("a \(kind) message in a session that is \(Self.words(state))")
        }
        guard length <= kind.longest else {
            throw MigrationError.protocolViolation("a \(kind) message of \(length) bytes")
        }
        beginFrame(length)
        try readPayload(length)
        #if APUS_FUZZ
            Self.witness(state, kind)
        #endif
        state = next
        return Frame(kind: kind, payload: UnsafeRawBufferPointer(rebasing: buffer[..<length]), connection: self)
    }

    #if APUS_FUZZ
        /// Told of each frame that is taken, and of the state in which it came. Set before the first session.
        nonisolated(unsafe) static var witness: (SessionState?, FrameKind) -> Void = { _, _ in }
    #endif

    /// Memory grows with what really arrives, not with what the header says will.
    private func readPayload(_ length: Int) throws {
        var have = 0
        while have < length {
            if have == buffer.count {
                let size = min((length + 0xfffff) & ~0xfffff, 2 * buffer.count)
                try take(size - buffer.count)
                let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
                larger.copyMemory(from: UnsafeRawBufferPointer(buffer))
                buffer.deallocate()
                buffer = larger
            }
            let end = min(length, buffer.count)
            try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[have..<end]))
            have = end
        }
    }

    /// Gives back what the last frame took.
    private func dropLastFrame() {
        if taken == 0 { return }
        if buffer.count > Self.bufferSize {
            buffer.deallocate()
            buffer = .allocate(byteCount: Self.bufferSize, alignment: 4096)
        }
        SessionBounds.shared.give(taken)
        taken = 0
    }

    /// The next frame, which has to be of this kind; the other side's refusal or abort is thrown.
    @discardableResult
    func expect<M: CheckedMessage>(_ kind: FrameKind, _ type: M.Type = M.self) throws -> Checked<M> {
        let frame = try receive()
        if frame.kind == kind { return try frame.message() }
        throw unexpected(frame, "\(kind)")
    }

    /// What a frame means that was not expected.
    func unexpected(_ frame: Frame, _ expected: String) -> any Error {
        switch frame.kind {
        case .refused:
            let refused: Checked<WireRefused>
            do { refused = try frame.message() } catch { return error }
            let reasons = refused.reasons.joined(separator: "; ").withoutControls
            return MigrationError(
                .refused, "\(refused.host.isEmpty ? peer : refused.host) refuses: \(reasons)",
                advice: refused.advice.isEmpty ? nil : refused.advice.withoutControls)
        case .abort:
            let abort: Checked<WireAbort>
            do { abort = try frame.message() } catch { return error }
            if abort.cancelled { return MigrationError.cancelled }
            return MigrationError(
                .failed, "\(peer) gave up: \(abort.reason.withoutControls)",
                advice: abort.advice.isEmpty ? nil : abort.advice.withoutControls)
        default: return MigrationError.protocolViolation("a \(frame.kind) message where \(expected) was expected")
        }
    }

    /// Says why this side gives up. The other has 2 s to take what is under way, so that it can read why, if it can be
    /// reached at all.
    func sendAbort(_ reason: MigrationError, neverRan: Bool = false) {
        var abort = WireAbort()
        (abort.reason, abort.neverRan, abort.advice) = (reason.message.clipped, neverRan, (reason.advice ?? "").clipped)
        abort.cancelled = reason.kind == .cancelled
        limit(seconds: reason.kind == .unreachable ? 0 : 2)
        silenceLimit = nil
        // Where there is nobody any more to read it, nobody needs it.
        try? send(.abort, abort)
    }

    /// Says why this host does not take what is offered, or does not answer.
    func sendRefusal(_ reason: MigrationError, of host: String) {
        var refused = WireRefused()
        (refused.host, refused.reasons) = (host, [reason.message.clipped])
        refused.advice = (reason.advice ?? "").clipped
        try? send(.refused, refused)
    }

    /// Waits for the other side's word that it gives up, too; false: it did not say so in time.
    func hearsAbort(seconds: Int64) -> Bool {
        limit(seconds: seconds)
        let deadline = monotonicNow() + seconds * 1_000_000_000
        while monotonicNow() < deadline, let kind = try? skipFrame() { if kind == .abort { return true } }
        return false
    }

    /// The kind of the next frame. It may have been under way when this side gave up, so any may come; nothing looks at
    /// it.
    private func skipFrame() throws -> FrameKind {
        var header: (UInt32, UInt32) = (0, 0)
        try withUnsafeMutableBytes(of: &header) { try read(into: $0) }
        var rest = Int(UInt32(littleEndian: header.0))
        guard let kind = FrameKind(rawValue: UInt32(littleEndian: header.1)), rest <= kind.longest else {
            throw MigrationError.protocolViolation("a frame of unknown kind \(header.1)")
        }
        while rest > 0 {
            let part = min(rest, buffer.count)
            try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<part]))
            rest -= part
        }
        return kind
    }

    /// Why a session really ended: when the connection broke, the other side may have said why before it closed it.
    func cause(of error: any Error) -> any Error {
        guard (error as? MigrationError)?.kind == .unreachable else { return error }
        whileWaiting = { throw error }
        askedAt = monotonicNow()
        let end = monotonicNow() + 2_000_000_000
        while monotonicNow() < end, let frame = try? receiveNext() {
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
            movedAt = monotonicNow()
            rest = UnsafeMutableRawBufferPointer(rebasing: rest[n...])
        }
    }

    private func lost(_ why: String) -> MigrationError { .disconnected(from: peer, why) }

    /// Waits for the socket, for `interval` at most.
    private func wait(_ events: Int32) throws {
        // First, so that a peer that sends byte after byte is not waited for the longer.
        try checkDeadline()
        var polled = pollfd(fd: descriptor.number, events: Int16(events), revents: 0)
        let isReady = poll(&polled, 1, interval) != 0
        // A link that lets a little through again and again is waited for as well.
        if isReady, monotonicNow() - askedAt < Int64(interval) * 1_000_000 { return }
        askedAt = monotonicNow()
        try whileWaiting()
        if !isReady { try checkSilence() }
    }
}

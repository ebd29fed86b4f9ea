// A small synchronous netlink client: messages built by hand, one request at a time, the kernel's own words in errors.
//
// rtnetlink does the work inside send(2), so a prepared request costs one send and one recv that finds its answer
// waiting. Everything that must be quick is encoded beforehand (`NetlinkBatch`).
import CLinux
import Glibc
import Synchronization

/// One netlink message under construction: header, fixed part, attributes.
public struct NetlinkMessage: Sendable {
    /// The message as it goes to the kernel; the sequence number is filled in when it is sent.
    public private(set) var bytes: [UInt8]
    public let type: Int

    /// Begins a request of `type` whose fixed part (struct ifinfomsg and the like) has `size` bytes, all zero.
    public init(_ type: Int, flags: Int = 0, fixed size: Int) {
        self.type = type
        bytes = [UInt8](repeating: 0, count: Int(CLX_NLMSG_HEADER + size))
        set(UInt16(truncatingIfNeeded: type), at: 4)
        set(UInt16(truncatingIfNeeded: flags | CLX_NLM_F_REQUEST), at: 6)
        finish()
    }

    /// Sets a field of the fixed part by its offset in the kernel's structure.
    public mutating func fixed<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        set(value, at: Int(CLX_NLMSG_HEADER) + offset)
    }

    /// Adds an attribute.
    public mutating func add(_ attribute: Int, _ payload: some Collection<UInt8>) {
        let length = payload.count + 4
        append(UInt16(length))
        append(UInt16(truncatingIfNeeded: attribute))
        bytes += payload
        while bytes.count % 4 != 0 { bytes.append(0) }
        finish()
    }
    public mutating func add<T: FixedWidthInteger>(_ attribute: Int, _ value: T) {
        add(attribute, NetlinkMessage.raw(value))
    }
    /// Adds a string, with the closing zero that the kernel asks for.
    public mutating func add(_ attribute: Int, _ text: String) { add(attribute, [UInt8](text.utf8) + [0]) }

    /// Adds an attribute that holds whatever `content` adds.
    public mutating func nest(
        _ attribute: Int, flagged: Bool = false, _ content: (inout NetlinkMessage) -> Void
    ) {
        let start = bytes.count
        append(UInt16(0))
        append(UInt16(truncatingIfNeeded: attribute) | (flagged ? UInt16(CLX_NLA_F_NESTED) : 0))
        content(&self)
        set(UInt16(bytes.count - start), at: start)
        finish()
    }
    /// Adds bytes that are no attribute (the fixed part of a nested message).
    mutating func append(raw: [UInt8]) {
        bytes += raw
        finish()
    }

    mutating func set<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        bytes.replaceSubrange(offset..<offset + MemoryLayout<T>.size, with: NetlinkMessage.raw(value))
    }
    private mutating func append<T: FixedWidthInteger>(_ value: T) { bytes += NetlinkMessage.raw(value) }
    private mutating func finish() { set(UInt32(bytes.count), at: 0) }

    static func raw<T: FixedWidthInteger>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value) { [UInt8]($0) } }
}

/// One message of an answer.
public struct NetlinkReply: Sendable {
    public let type: Int
    let flags: Int
    /// Fixed part and attributes.
    let payload: ArraySlice<UInt8>

    /// A field of the fixed part by its offset in the kernel's structure; 0 beyond the end.
    public func fixed<T: FixedWidthInteger>(_ offset: Int, as: T.Type = T.self) -> T {
        payload.integer(at: offset)
    }
    /// The attributes behind a fixed part of `size` bytes.
    public func attributes(after size: Int) -> NetlinkAttributes {
        NetlinkAttributes(payload.dropFirst(Int(size)))
    }
}

/// The attributes of a message or of a nest, by number. The last one of a number counts, as in the kernel.
public struct NetlinkAttributes: Sendable {
    private var found: [(Int, ArraySlice<UInt8>)] = []

    init(_ bytes: ArraySlice<UInt8>) {
        var rest = bytes
        while rest.count >= 4 {
            let length = Int(rest.integer(at: 0, as: UInt16.self))
            if length < 4 || length > rest.count { break }
            let type = Int(rest.integer(at: 2, as: UInt16.self) & 0x3fff)
            found.append((type, rest.dropFirst(4).prefix(length - 4)))
            rest = rest.dropFirst((length + 3) & ~3)
        }
    }
    public subscript(_ type: Int) -> ArraySlice<UInt8>? { found.last { $0.0 == type }?.1 }
    public func integer<T: FixedWidthInteger>(_ type: Int, as: T.Type = T.self) -> T? {
        self[type].map { $0.integer(at: 0) }
    }
    public func text(_ type: Int) -> String? {
        self[type].map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    public func nest(_ type: Int) -> NetlinkAttributes? { self[type].map { NetlinkAttributes($0) } }
}

extension ArraySlice<UInt8> {
    /// The integer in the kernel's byte order at `offset` from the slice's start; 0 beyond the end.
    func integer<T: FixedWidthInteger>(at offset: Int, as: T.Type = T.self) -> T {
        let size = MemoryLayout<T>.size
        guard offset >= 0, offset + size <= count else { return 0 }
        // SAFETY: the bounds were just checked; loadUnaligned needs no alignment.
        return withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: T.self) }
    }
}

/// Requests encoded beforehand, sent together in one system call and carried out in order.
///
/// The kernel goes on after a message that fails; the first failure is thrown.
public struct NetlinkBatch: Sendable {
    fileprivate let bytes: [UInt8]
    fileprivate let offsets: [Int]
    let operation: StaticString

    public init(_ operation: StaticString, _ messages: [NetlinkMessage]) {
        self.operation = operation
        var bytes = [UInt8](), offsets = [Int]()
        for var message in messages {
            offsets.append(bytes.count)
            let flags = UInt16(truncatingIfNeeded: CLX_NLM_F_ACK) | message.bytes[6...].integer(at: 0, as: UInt16.self)
            message.set(flags, at: 6)
            bytes += message.bytes
            while bytes.count % 4 != 0 { bytes.append(0) }
        }
        self.bytes = bytes
        self.offsets = offsets
    }
}

/// A netlink socket: bound to the network namespace of the thread that opened it, usable from any thread.
public final class NetlinkSocket: Sendable {
    public enum Family: Int32, Sendable {
        /// rtnetlink(7).
        case route = 0
        /// sock_diag(7).
        case socketDiagnosis = 4
        /// Packet filters: nfnetlink.
        case netfilter = 12
    }
    public let descriptor: FileDescriptor
    private struct State {
        var sequence: UInt32 = 1
        var buffer = [UInt8](repeating: 0, count: 65536)
    }
    private let state = Mutex(State())

    /// Opens a socket in the calling thread's network namespace.
    public init(_ family: Family = .route) throws(KernelError) {
        descriptor = FileDescriptor(owning: try check(clx_netlink_open(family.rawValue), "opening a netlink socket"))
    }
    /// Opens a socket in another namespace; the caller's own does not change.
    public convenience init(_ family: Family = .route, in namespace: NetworkNamespace) throws(KernelError) {
        let number = try namespace.run { () throws(KernelError) in
            try check(clx_netlink_open(family.rawValue), "opening a netlink socket")
        }
        self.init(owning: number)
    }
    /// A socket that is told of changes, by the groups of RTNLGRP_*, in the calling thread's network namespace.
    public convenience init(notifiedOf groups: [Int32]) throws(KernelError) {
        try self.init(.route)
        for var group in groups {
            // SOL_NETLINK, NETLINK_ADD_MEMBERSHIP.
            try checkC(setsockopt(descriptor.number, 270, 1, &group, 4), "asking to be told of changes of the network")
        }
    }
    private init(owning number: Int32) { descriptor = FileDescriptor(owning: number) }

    /// Sends one request and waits for its acknowledgement.
    public func request(_ message: NetlinkMessage, _ operation: @autoclosure () -> String) throws(KernelError) {
        if let failure = try send(NetlinkBatch("netlink request", [message])) {
            throw KernelError(operation() + failure.words, failure.errno)
        }
    }
    /// Sends prepared requests and waits for all acknowledgements; throws the first failure after all were tried.
    public func request(_ batch: NetlinkBatch) throws(KernelError) {
        if let failure = try send(batch) { throw KernelError("\(batch.operation)\(failure.words)", failure.errno) }
    }

    private struct Failure {
        let errno: Errno
        let words: String
    }
    private func send(_ batch: NetlinkBatch) throws(KernelError) -> Failure? {
        try state.withLock { state throws(KernelError) -> Failure? in
            var bytes = batch.bytes
            let first = state.sequence
            for offset in batch.offsets {
                // SAFETY: every offset is the start of a whole message header inside `bytes`.
                bytes.withUnsafeMutableBytes {
                    $0.storeBytes(of: state.sequence, toByteOffset: offset + 8, as: UInt32.self)
                }
                state.sequence &+= 1
            }
            try check(clx_send(descriptor.number, bytes, bytes.count, 0), "\(batch.operation)")
            var failure: Failure?
            var missing = batch.offsets.count
            while missing > 0 {
                try receive(&state, "\(batch.operation)") { sequence, reply in
                    guard reply.type == CLX_NLMSG_ERROR, sequence &- first < UInt32(batch.offsets.count) else { return }
                    missing -= 1
                    let code = reply.fixed(0, as: Int32.self)
                    if code < 0 && failure == nil {
                        let text = reply.attributes(after: 4 + CLX_NLMSG_HEADER).text(CLX_NLMSGERR_ATTR_MSG)
                        failure = Failure(errno: Errno(-code), words: text.map { " (\($0))" } ?? "")
                    }
                }
            }
            return failure
        }
    }

    /// Sends a dump request and hands every message of the answer to `body`.
    ///
    /// A dump that changed while the kernel walked it is asked for again, at most ten times.
    public func dump(_ message: NetlinkMessage, _ operation: @autoclosure () -> String) throws(KernelError)
        -> [NetlinkReply]
    {
        var message = message
        message.set(UInt16(truncatingIfNeeded: CLX_NLM_F_REQUEST | CLX_NLM_F_DUMP), at: 6)
        let operation = operation()
        return try state.withLock { state throws(KernelError) -> [NetlinkReply] in
            for _ in 0..<10 {
                let sequence = state.sequence
                state.sequence &+= 1
                message.set(sequence, at: 8)
                try check(clx_send(descriptor.number, message.bytes, message.bytes.count, 0), operation)
                var replies = [NetlinkReply](), done = false
                var code: Int32 = 0
                var interrupted = false
                while !done {
                    try receive(&state, operation) { number, reply in
                        guard number == sequence else { return }
                        if reply.flags & CLX_NLM_F_DUMP_INTR != 0 { interrupted = true }
                        switch reply.type {
                        case CLX_NLMSG_DONE, CLX_NLMSG_ERROR:
                            done = true
                            code = reply.fixed(0, as: Int32.self)
                        default: replies.append(reply)
                        }
                    }
                }
                if code < 0 { throw KernelError(operation, Errno(-code)) }
                if !interrupted { return replies }
            }
            throw KernelError(operation + " (changing all the time)", .interrupted)
        }
    }

    /// Receives one datagram and hands over its messages.
    private func receive(
        _ state: inout State, _ operation: @autoclosure () -> String, _ body: (UInt32, NetlinkReply) -> Void
    ) throws(KernelError) {
        let count = try check(
            clx_recv(descriptor.number, &state.buffer, state.buffer.count, 0), operation())
        var rest = state.buffer[..<count]
        while rest.count >= Int(CLX_NLMSG_HEADER) {
            let length = Int(rest.integer(at: 0, as: UInt32.self))
            if length < Int(CLX_NLMSG_HEADER) || length > rest.count { break }
            let payload = rest.prefix(length).dropFirst(Int(CLX_NLMSG_HEADER))
            // A copy of its own: the slice would share the buffer and the next recv would copy all of it.
            body(
                rest.integer(at: 8),
                NetlinkReply(
                    type: Int(rest.integer(at: 4, as: UInt16.self)), flags: Int(rest.integer(at: 6, as: UInt16.self)),
                    payload: ArraySlice([UInt8](payload))))
            rest = rest.dropFirst((length + 3) & ~3)
        }
    }
}

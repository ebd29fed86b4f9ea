// The validating layer between the wire and whatever uses what came over it. A message is read as `Checked`, which only
// a message that holds what the protocol allows can become. What Engine makes of images and layouts is checked by its
// own types (`CheckedImage`, `CheckedLayout`), trees of files by Containers while they are read.
import Containers
import Engine
import Foundation
import LinuxKernel
import SwiftProtobuf

/// A message that can be received.
protocol CheckedMessage: Message {
    /// For the limit of the memory that it takes.
    static var shape: MessageShape { get }
    /// - Throws: what in it the protocol does not allow.
    func check() throws
}

extension CheckedMessage {
    static var shape: MessageShape { .plain }
    func check() throws {}
}

/// A message that holds what the protocol allows.
@dynamicMemberLookup
struct Checked<M: CheckedMessage> {
    let message: M

    init(_ message: M) throws {
        try message.check()
        self.message = message
    }
    /// From the bytes of a frame; `taking` is asked for the memory that it takes before it is decoded.
    init(decoding bytes: UnsafeRawBufferPointer, taking: (Int) throws -> Void) throws {
        try taking(try M.shape.weight(of: bytes))
        let message: M
        do { message = try M(serializedBytes: [UInt8](bytes)) } catch {
            throw MigrationError.protocolViolation("a message that cannot be read (\(error))")
        }
        try self.init(message)
    }
    subscript<T>(dynamicMember path: KeyPath<M, T>) -> T { message[keyPath: path] }
}

/// The checks that messages share. Each is named after what it allows.
enum Allowed {
    /// The highest PID that Linux can be told to give (PID_MAX_LIMIT).
    private static let pids: ClosedRange<Int32> = 1...(1 << 22)
    /// 73 years in nanoseconds: sums of several do not overflow.
    private static let longest: Int64 = 1 << 61

    static func violation(_ what: String) -> MigrationError { .protocolViolation(what) }

    static func that(_ holds: Bool, _ what: @autoclosure () -> String) throws {
        if !holds { throw violation(what()) }
    }
    /// What a clock shows.
    static func instant(_ value: Int64, _ what: String) throws {
        try that((0...longest).contains(value), "\(what) of \(value) ns")
    }
    /// The difference of two clocks.
    static func difference(_ value: Int64, _ what: String) throws {
        try that((-longest / 2...longest / 2).contains(value), "\(what) of \(value) ns")
    }
    static func pid(_ value: Int32, _ what: String) throws {
        try that(pids.contains(value), "\(what) \(value)")
    }
    /// A short text that is shown to people.
    static func word(_ text: String, _ what: String, atMost limit: Int = 256) throws {
        try that(text.utf8.count <= limit, "\(what) of \(text.utf8.count) bytes")
        try that(
            text.unicodeScalars.allSatisfy { $0.value >= 32 && $0.value != 127 }, "\(what) with control characters")
    }
    /// Sentences for people.
    static func text(_ text: String, _ what: String) throws {
        try that(text.utf8.count <= longestText, "\(what) of \(text.utf8.count) bytes")
    }
    /// Bytes of the longest reason that is sent or taken.
    static let longestText = 16 << 10

    static func bytes(_ data: Data, _ what: String, atMost limit: Int) throws {
        try that(data.count <= limit, "\(what) of \(data.count) bytes")
    }
    static func path(_ path: String, _ what: String) throws {
        try that(
            path.hasPrefix("/") && path.utf8.count <= 4096 && !path.utf8.contains(0), "\(what) that is no path")
    }
    static func json<T: Decodable>(_ data: Data, as type: T.Type, _ what: String) throws -> T {
        do { return try JSONDecoder().decode(type, from: data) } catch {
            throw violation("\(what) that cannot be read (\(error))")
        }
    }
}

extension String {
    /// Fit to be sent to another host: no longer than that takes.
    var clipped: String {
        utf8.count <= Allowed.longestText
            ? self : String(decoding: utf8.prefix(Allowed.longestText - 8), as: UTF8.self) + " ..."
    }
    /// Fit to be shown: what came from another host cannot move the cursor or begin a line of its own.
    var withoutControls: String {
        String(String.UnicodeScalarView(unicodeScalars.map { $0.value < 32 || $0.value == 127 ? " " : $0 }))
    }
}

// ---- The messages, in the order of a session ---------------------------------------------------------------------

extension WireOffer: CheckedMessage {
    static var shape: MessageShape { MessageShape(messages: [14: .plain], numbers: [160]) }

    func check() throws {
        // The other fields of another version may mean something else.
        guard protocolVersion == sessionProtocolVersion else {
            throw MigrationError.refused([
                "the source speaks version \(protocolVersion) of the protocol, this host \(sessionProtocolVersion)"
            ])
        }
        try Inquiry.check(identifier: migration)
        do throws(ContainerError) {
            try checkName(container, "container")
            try checkName(sourceHost, "host")
        } catch { throw Allowed.violation("an offer in which \(error)") }
        try Allowed.that(
            sourceAddress.utf8.count <= 64 && PeerAddress(sourceAddress) != nil, "no address of the source")
        try Allowed.bytes(config, "a configuration", atMost: 1 << 20)
        try Allowed.bytes(network, "a network", atMost: 64 << 10)
        try Allowed.bytes(kernel, "a description of a kernel", atMost: 256 << 10)
        try Allowed.bytes(plan, "a plan", atMost: 64 << 10)
        try Allowed.word(runtime, "a runtime")
        try Allowed.word(runtimeVersion, "a runtime's version")
        try Allowed.word(boot, "a boot")
        try Allowed.pid(pid, "a container's first process of PID")
        try Allowed.that(SessionSecret(secret) != nil, "a secret of \(secret.count) bytes")
        try Allowed.that(limits.count <= 16, "\(limits.count) limits")
        try Allowed.that(mappedFiles.count <= 16384, "\(mappedFiles.count) mapped files")
        for file in mappedFiles {
            try Allowed.path(file.path, "a mapped file")
            try Allowed.that(file.size <= UInt64(Int64.max), "a mapped file of \(file.size) bytes")
            try Allowed.that(file.digest.isEmpty || Digest(hexadecimal: file.digest) != nil, "a digest that is none")
        }
        let mistakes = try Allowed.json(plan, as: MigrationPlan.self, "a plan").mistakes
        try Allowed.that(mistakes.isEmpty, "a plan that cannot be: \(mistakes.joined(separator: "; "))")
        _ = try Allowed.json(kernel, as: KernelFacts.self, "a description of a kernel")
        if !network.isEmpty {
            let mistakes = try Allowed.json(network, as: NetworkSpec.self, "a network").mistakes
            try Allowed.that(mistakes.isEmpty, "a network that cannot be: \(mistakes.joined(separator: "; "))")
        }
    }
}

extension WireAccepted: CheckedMessage {
    func check() throws {
        try Allowed.word(host, "a host's name")
        try Allowed.word(boot, "a boot")
        try Allowed.word(address, "an address")
        try Allowed.word(identity, "an identity")
    }
}

extension WireRefused: CheckedMessage {
    func check() throws {
        try Allowed.that(reasons.count <= 64, "a refusal for \(reasons.count) reasons")
        for reason in reasons { try Allowed.text(reason, "a reason") }
        try Allowed.text(advice, "an advice")
        try Allowed.word(host, "a host's name")
    }
}

extension WireAbort: CheckedMessage {
    func check() throws {
        try Allowed.text(reason, "a reason")
        try Allowed.text(advice, "an advice")
    }
}

extension WireClockProbe: CheckedMessage {
    func check() throws {
        try Allowed.instant(sent, "a clock")
        try Allowed.instant(answered, "a clock")
        try Allowed.instant(answeredBoottime, "a clock")
    }
}

extension WireTree: CheckedMessage {}

extension WireStage: CheckedMessage {
    static var shape: MessageShape {
        MessageShape(messages: [6: .plain, 7: .spaceLayout, 8: MessageShape(numbers: [2])])
    }

    func check() throws {
        try Allowed.that(!processes.isEmpty, "no processes")
        let threads = processes.flatMap(\.threads)
        try Allowed.that(threads.count <= 1 << 17, "\(threads.count) threads")
        try Allowed.that(Set(threads).count == threads.count, "two threads of one TID")
        for thread in threads { try Allowed.pid(thread, "a thread of TID") }
        let memories = Set(spaces.map(\.memory))
        try Allowed.that(memories.count == spaces.count, "two layouts of one memory")
        for process in processes {
            try Allowed.that(process.threads.contains(process.pid), "pid \(process.pid) without its first thread")
            try Allowed.that(memories.contains(process.memory), "pid \(process.pid) without its memory")
        }
        try Allowed.bytes(neighbours, "neighbours", atMost: 1 << 20)
        if !neighbours.isEmpty { _ = try Allowed.json(neighbours, as: [Neighbour].self, "neighbours") }
        try Allowed.difference(clocks.monotonic, "a difference of clocks")
        try Allowed.difference(clocks.boottime, "a difference of clocks")
    }
}

extension WireStaged: CheckedMessage {}

extension WireLayout: CheckedMessage {
    static var shape: MessageShape { MessageShape(messages: [3: .spaceLayout]) }
}

extension WirePassEnd: CheckedMessage {
    func check() throws { try Allowed.instant(began, "a pass's beginning") }
}
extension WirePassApplied: CheckedMessage {
    func check() throws { try Allowed.instant(began, "a pass's beginning") }
}

extension WireFrozen: CheckedMessage {}
extension WireMuted: CheckedMessage {}

extension WireHandover: CheckedMessage {
    static var shape: MessageShape { MessageShape(messages: [4: .tree, 3: .plain]) }

    func check() throws {
        try Allowed.instant(clocks.monotonic, "a clock")
        try Allowed.instant(clocks.boottime, "a clock")
    }
}

extension WireThreads: CheckedMessage {
    static var shape: MessageShape { MessageShape(messages: [1: .threads]) }
}

extension WirePromise: CheckedMessage {
    static var shape: MessageShape {
        MessageShape(messages: [
            4: .map(.lateState), 182: .map(MessageShape(messages: [2: .map(.plain)])),
        ])
    }
}

extension WireReleased: CheckedMessage {
    static var shape: MessageShape { MessageShape(messages: [2: .plain]) }

    func check() throws {
        try Allowed.instant(at, "a release")
        try Allowed.that(steps.count <= 4096, "\(steps.count) steps")
        for step in steps {
            try Allowed.word(step.name, "a step's name")
            try Allowed.instant(step.start, "a step's beginning")
            try Allowed.instant(step.duration, "a step's length")
        }
    }
}

extension WireRetired: CheckedMessage {}

extension WireInquiry: CheckedMessage {
    func check() throws {
        try Inquiry.check(identifier: migration)
        try Allowed.that(SessionSecret(secret) != nil, "a secret of \(secret.count) bytes")
        do throws(ContainerError) { try checkName(container, "container") } catch {
            throw Allowed.violation("an inquiry in which \(error)")
        }
    }
}

extension WireVerdict: CheckedMessage {
    func check() throws {
        try Allowed.that(state.isEmpty || SessionState(rawValue: state) != nil, "a state that is none")
        try Allowed.text(reason, "a reason")
        try Allowed.word(boot, "a boot")
        try Allowed.word(identity, "an identity")
    }
}

// ---- What is in an image (Protos/ProcessImage.proto) ---------------------------------------------------------------

extension MessageShape {
    fileprivate static let spaceLayout = MessageShape(messages: [2: .plain])
    private static let options = MessageShape(messages: [1: .plain])
    private static let connection = MessageShape(messages: [18: options])
    private static let datagrams = MessageShape(messages: [1: .plain])
    fileprivate static let lateState = MessageShape(messages: [1: connection, 2: datagrams])
    private static let file = MessageShape(messages: [
        10: .plain, 11: .plain, 12: MessageShape(numbers: [5]), 13: .plain, 14: MessageShape(messages: [1: .plain]),
        15: MessageShape(messages: [4: options]), 16: connection,
        17: MessageShape(messages: [4: options, 5: datagrams]),
    ])
    private static let thread = MessageShape(messages: [23: MessageShape(numbers: [1, 2, 3])])
    fileprivate static let threads = MessageShape(messages: [2: thread, 5: MessageShape(messages: [2: .plain])])
    private static let process = MessageShape(messages: [9: MessageShape(numbers: [6]), 10: .plain])
    fileprivate static let tree = MessageShape(messages: [
        2: process, 3: .plain, 4: MessageShape(messages: [1: .plain]), 5: file,
    ])
}

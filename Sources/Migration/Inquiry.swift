// After a crash: asking another host what became of a migration, and answering.
import Containers
import Foundation
import Glibc
import LinuxKernel
import Synchronization

/// What comes of asking another host about a migration.
struct InquiryAnswer {
    /// What it decides; nil: nothing (yet).
    private(set) var state: SessionState?
    /// There is no trace of the migration on the other host.
    private(set) var isUnknown = false
    /// The same for a person to read.
    private(set) var words: String
    /// Nil: nobody answered.
    private var connection: Connection?
    var isThere: Bool { connection != nil }

    fileprivate init(nobody why: String) { words = why }

    /// - Parameter header: of the journal of whoever asks.
    fileprivate init(_ verdict: Checked<WireVerdict>, _ header: JournalHeader, _ connection: Connection) {
        self.connection = connection
        let host = header.peerName ?? header.peer
        switch SessionState(rawValue: verdict.state) {
        case .released?, .retired?: (state, words) = (.released, "it runs on \(host)")
        case .aborted?: (state, words) = (.aborted, "it never ran there")
        case nil where verdict.state.isEmpty:
            isUnknown = true
            words = "\(host) answers that it knows nothing of migration \(header.migration)"
            guard let boot = header.peerBoot, Self.kernel(boot) != Self.kernel(verdict.boot) else { return }
            // Another host may have got its address.
            guard header.peerIdentity == verdict.identity else {
                words += ", but it is not the host that was asked to take \(header.container)"
                return
            }
            words = "\(host) has booted anew since: its copy of \(header.container) is gone with its memory"
            // What it had before is lost, unless it had hardly begun: a host records what it has released at once, on
            // its disk.
            if verdict.knowsContainer {
                words +=
                    ", but had run there: its files are there, and what it told its clients may be newer than this host's copy"
            } else {
                (state, words) = (.aborted, words + ", and it was never recorded there")
            }
        default: words = "\(host) answers that it cannot tell yet whether \(header.container) runs there"
        }
    }

    /// The kernel's boot in an identity of `bootIdentity`, which also names an agent's clocks.
    private static func kernel(_ boot: String) -> Substring? { boot.split(separator: " ").first }

    /// Tells the other host that its word has been acted on: it may forget it.
    func acknowledge() { try? connection?.send(.retired, WireRetired()) }
}

enum Inquiry {
    /// Asks the other host of a journal what became of its migration.
    static func ask(_ header: JournalHeader) -> InquiryAnswer {
        do {
            guard let address = PeerAddress(header.peer), let secret = header.secret else {
                return InquiryAnswer(nobody: "the journal names no address or no secret to ask with")
            }
            let connection = try Connection(try address.connect(timeLimit: .milliseconds(300)), as: .source)
            connection.peer = header.peerName ?? header.peer
            connection.limit(seconds: 1)
            var inquiry = WireInquiry()
            (inquiry.migration, inquiry.secret) = (header.migration, Data(secret.bytes))
            inquiry.container = header.container
            try connection.send(.inquiry, inquiry)
            return InquiryAnswer(try connection.expect(.verdict, WireVerdict.self), header, connection)
        } catch { return InquiryAnswer(nobody: "\(header.peerName ?? header.peer) does not answer: \(error)") }
    }

    /// Answers a party of the migration from the journals in `folder` and what the host has on its disk, and forgets
    /// what it need not be told again.
    ///
    /// - Throws: `refused` for anybody else.
    static func answer(
        _ inquiry: Checked<WireInquiry>, over connection: Connection, journals folder: String, _ layout: HostLayout
    ) throws {
        let trace = Recovery.trace(of: inquiry.migration, in: folder)
        if let trace {
            guard let secret = trace.secret, let shown = SessionSecret(inquiry.secret), secret.matches(shown) else {
                throw MigrationError.refused(["only a party of migration \(inquiry.migration) is told about it"])
            }
        }
        var verdict = WireVerdict()
        verdict.state = trace?.state.rawValue ?? ""
        (verdict.boot, verdict.identity) = (try bootIdentity(), try layout.identity())
        verdict.knowsContainer =
            (try? layout.container(inquiry.container)).map { access($0.record, F_OK) == 0 } ?? false
        try connection.send(.verdict, verdict)
        guard trace?.state == .aborted || trace?.state == .released else { return }
        // The source may take its time: it ends its copy first. One that leaves without a word asks again.
        connection.limit(seconds: 60)
        guard (try? connection.expect(.retired, WireRetired.self)) != nil else { return }
        Recovery.forget(inquiry.migration, in: folder)
    }

    /// A migration's identifier becomes a part of paths.
    static func check(identifier: String) throws {
        let isPlain = identifier.utf8.allSatisfy { $0 >= 48 && $0 <= 57 || $0 | 32 >= 97 && $0 | 32 <= 122 || $0 == 45 }
        guard isPlain, (1...64).contains(identifier.utf8.count) else {
            throw MigrationError.protocolViolation("'\(identifier)' is no migration's identifier")
        }
    }
}

/// Answers inquiries on the migration address of a host whose agent is dead; nothing else.
final class InquiryService: Sendable {
    private let host: SessionHost
    private let state = Mutex<(running: Bool, listener: FileDescriptor?)>((false, nil))

    init(_ host: SessionHost) { self.host = host }

    /// Starts to listen, as soon as the address is free.
    func start() {
        if state.withLock({ state in
            defer { state.running = true }
            return state.running
        }) {
            return
        }
        try? OwnThread.start("apus-answers") { [self] in
            while state.withLock({ $0.running }) {
                guard let listener = try? PeerAddress(host.address)?.listen() else {
                    usleep(20_000)
                    continue
                }
                let isRunning = state.withLock { state in
                    state.listener = listener
                    return state.running
                }
                while isRunning, let socket = try? PeerAddress.accept(on: listener) {
                    try? OwnThread.start("apus-answer") { [host] in
                        guard let place = try? SessionBounds.shared.enter(),
                            let connection = try? Connection(socket, as: .destination)
                        else { return }
                        defer { withExtendedLifetime(place) {} }
                        do {
                            let frame = try connection.receive()
                            guard frame.kind == .inquiry else { return }
                            try Inquiry.answer(
                                try frame.message(), over: connection, journals: host.journals, host.layout)
                        } catch {
                            let reason = MigrationError(error, on: host.name)
                            if reason.kind == .refused { connection.sendRefusal(reason, of: host.name) }
                        }
                    }
                }
                state.withLock { $0.listener = nil }
            }
        }
    }

    /// Frees the address.
    func stop() {
        let listener = state.withLock { state in
            defer { state.running = false }
            return state.listener
        }
        if let listener { shutdown(listener.number, Int32(SHUT_RDWR)) }
    }
}

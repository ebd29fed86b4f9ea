// After a crash: asking another host what became of a migration, and answering.
import Glibc
import LinuxKernel
import Synchronization

/// What another host says of a migration.
struct InquiryAnswer {
    /// Nil: it cannot tell (yet).
    let state: SessionState?
    /// False: there is no trace of the migration there.
    let isKnown: Bool
    fileprivate let connection: Connection

    /// Tells the other host that its word has been acted on: it may forget it.
    func acknowledge() { try? connection.send(.retired, WireRetired()) }
}

enum Inquiry {
    /// Asks the host at `address`; nil: nobody there.
    static func ask(_ address: String, migration: String) -> InquiryAnswer? {
        guard let socket = try? PeerAddress(address)?.connect(timeLimit: .milliseconds(300)),
            let connection = try? Connection(socket)
        else { return nil }
        connection.limit(seconds: 1)
        var inquiry = WireInquiry()
        inquiry.migration = migration
        guard (try? connection.send(.inquiry, inquiry)) != nil,
            let verdict: WireVerdict = try? connection.expect(.verdict)
        else { return nil }
        return InquiryAnswer(
            state: SessionState(rawValue: verdict.state).flatMap { $0 == .inDoubt ? nil : $0 },
            isKnown: !verdict.state.isEmpty,
            connection: connection)
    }

    /// Answers one from the journals in `folder`, and forgets what the other side need not be told again.
    static func answer(_ inquiry: WireInquiry, over connection: Connection, journals folder: String) throws {
        try check(identifier: inquiry.migration)
        let state = Recovery.verdict(on: inquiry.migration, in: folder)
        var verdict = WireVerdict()
        verdict.state = state?.rawValue ?? ""
        try connection.send(.verdict, verdict)
        guard state == .aborted || state == .released else { return }
        // The source may take its time: it ends its copy first.
        connection.limit(seconds: 60)
        let _: WireRetired = try connection.expect(.retired)
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
                        guard let connection = try? Connection(socket) else { return }
                        if let frame = try? connection.receive(), frame.kind == .inquiry,
                            let inquiry: WireInquiry = try? frame.message()
                        {
                            try? Inquiry.answer(inquiry, over: connection, journals: host.journals)
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

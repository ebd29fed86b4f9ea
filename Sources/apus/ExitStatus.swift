import Agent

/// What the exit status of `apus` means. Thrown by a command that has said all there is to say.
enum ExitStatus: Int32, Error, CaseIterable {
    case ok = 0
    /// Something failed; a container that was to be moved runs on where it was.
    case failed = 1
    /// The command line or a request is wrong.
    case usage = 2
    /// There is no such container, migration or host.
    case notFound = 3
    /// It cannot be done, and the message names why; nothing was changed.
    case refused = 4
    /// The migration was cancelled; the container runs on where it was.
    case cancelled = 5
    /// An agent cannot be reached.
    case unreachable = 6
    /// A migration is in doubt: `apus resolve` ends it.
    case inDoubt = 7
    /// `apus doctor`: this host lacks something essential.
    case incapable = 8

    init(_ code: AgentError.Code) {
        self =
            switch code {
            case .badRequest, .tooLarge, .methodNotAllowed: .usage
            case .notFound, .containerUnknown, .migrationUnknown, .hostUnknown: .notFound
            case .nameTaken, .busy, .wrongState, .refused: .refused
            case .cancelled: .cancelled
            case .unreachable, .agentNotRunning: .unreachable
            case .inDoubt: .inDoubt
            case .containerExited, .runtimeFailed, .failed: .failed
            }
    }

    static let help = """
        Exit status: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused by name, 5 cancelled, \
        6 agent unreachable, 7 in doubt, 8 host incapable (doctor).
        """
}

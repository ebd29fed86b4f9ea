// Why a migration did not happen. Until the promise every one of these leaves the source running.
import Engine

/// Why a migration ended before its time.
public enum MigrationError: Error, Sendable, CustomStringConvertible {
    /// State that cannot be carried, or a destination that cannot take it; each with its reason.
    case refused([String])
    case cancelled
    /// The other side gave up, with its words.
    case aborted(String)
    /// The connection to the other side is gone.
    case disconnected(String)
    /// The stream holds what the protocol does not allow.
    case protocolViolation(String)
    /// Neither side may decide who runs; see `apus resolve`.
    case inDoubt(String)

    public var description: String {
        switch self {
        case .refused(let reasons): "refused: " + reasons.joined(separator: "; ")
        case .cancelled: "cancelled; the source runs on"
        case .aborted(let reason): "the other host gave up: \(reason)"
        case .disconnected(let what): "connection lost: \(what)"
        case .protocolViolation(let what): "the other host does not keep to the protocol: \(what)"
        case .inDoubt(let what): "in doubt which copy runs: \(what); decide with 'apus resolve'"
        }
    }
}

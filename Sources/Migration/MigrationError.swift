// How a migration ends when it does not succeed.

/// Why a migration ended without moving the container.
public struct MigrationError: Error, Codable, Sendable, CustomStringConvertible {
    public enum Kind: String, Codable, Sendable {
        /// Found impossible before anything was frozen; the message names what.
        case refused
        case cancelled
        /// The other agent cannot be reached, or was lost before the promise.
        case unreachable
        /// The other host's agent or this one failed; the source runs on.
        case failed
        /// Lost between promise and release: neither side may decide.
        case inDoubt = "in-doubt"
    }
    public var kind: Kind
    public var message: String
    /// What to do about it.
    public var advice: String?

    public init(_ kind: Kind, _ message: String, advice: String? = nil) {
        self.kind = kind
        self.message = message
        self.advice = advice
    }
    public var description: String { message }
}

extension MigrationError {
    /// State that cannot be carried, or a destination that cannot take it; each with its reason.
    static func refused(_ reasons: [String]) -> MigrationError { MigrationError(.refused, reasons.joined(separator: "; ")) }
    static let cancelled = MigrationError(.cancelled, "cancelled; the source runs on")
    static let resolved = MigrationError(.failed, "ended by an operator: the source's copy is the one that lives")
    /// The other side gave up, with its words.
    static func aborted(_ reason: String) -> MigrationError { MigrationError(.failed, "the other host gave up: \(reason)") }
    static func disconnected(_ what: String) -> MigrationError { MigrationError(.unreachable, "connection lost: \(what)") }
    /// The stream holds what the protocol does not allow.
    static func protocolViolation(_ what: String) -> MigrationError {
        MigrationError(.failed, "the other host does not keep to the protocol: \(what)")
    }
}

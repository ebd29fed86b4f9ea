// How a migration ends when it does not succeed.
import Containers
import Engine
import Glibc
import LinuxKernel

/// Why a migration ended without moving the container.
public struct MigrationError: Error, Codable, Sendable, CustomStringConvertible {
    public enum Kind: String, Codable, Sendable {
        /// Found impossible; the message names what. The source runs on.
        case refused
        /// The container ended by itself while it was being moved: there is nothing to move any more.
        case exited
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
    static func refused(_ reasons: [String]) -> MigrationError {
        MigrationError(.refused, reasons.joined(separator: "; "))
    }
    static let cancelled = MigrationError(.cancelled, "cancelled; the source runs on")
    static let resolved = MigrationError(.failed, "ended by an operator: the source's copy is the one that lives")
    /// The other side gave up, with its words.
    static func aborted(_ reason: String) -> MigrationError {
        MigrationError(.failed, "the other host gave up: \(reason)")
    }
    static func disconnected(from peer: String, _ why: String) -> MigrationError {
        MigrationError(
            .unreachable, "connection to \(peer) lost: \(why)",
            advice: "look at the network between the hosts, and whether the agent there still runs")
    }
    /// Whatever ended a migration on `host`, in its own words and with what to do about it.
    init(_ error: any Error, on host: String) {
        switch error {
        case let error as MigrationError: self = error
        case let error as ContainerError: self.init(.refused, error.description)
        case let error as EngineError:
            switch error {
            case .obstacles, .heldUp, .executed: self.init(.refused, "\(error)")
            default: self.init(.failed, "\(error)")
            }
        case let error as KernelError where error.errno == .noSpace || error.errno == Errno(EDQUOT):
            self.init(
                .refused, "\(error)", advice: "make room there on \(host), or give its agent another --state folder")
        case let error as KernelError where error.errno == Errno(ENOMEM):
            self.init(
                .refused, "\(error)", advice: "free memory on \(host), or raise the limit of the container's cgroup")
        default: self.init(.failed, "\(error)")
        }
    }
    /// The stream holds what the protocol does not allow.
    static func protocolViolation(_ what: String) -> MigrationError {
        MigrationError(.failed, "the other host does not keep to the protocol: \(what)")
    }
}

// What an agent answers when it cannot do what it was asked.
import Containers
import LinuxKernel
import Migration

/// An agent's refusal or failure, as it travels through the API.
public struct AgentError: Error, Codable, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Codable, Sendable, CaseIterable {
        // What was asked is wrong.
        case badRequest = "bad-request"
        case tooLarge = "too-large"
        case methodNotAllowed = "method-not-allowed"
        case notFound = "not-found"
        // It is about something that is not there, or not like that.
        case containerUnknown = "container-unknown"
        case migrationUnknown = "migration-unknown"
        case hostUnknown = "host-unknown"
        case nameTaken = "name-taken"
        case busy
        case wrongState = "wrong-state"
        // How a migration ended.
        case refused
        case containerExited = "container-exited"
        case cancelled
        case unreachable
        case inDoubt = "in-doubt"
        // Something failed.
        case runtimeFailed = "runtime-failed"
        case failed
        /// Only a client says so: there is no agent at the socket.
        case agentNotRunning = "agent-not-running"
    }
    public var code: Code
    public var message: String
    /// What to do about it.
    public var advice: String?

    public init(_ code: Code, _ message: String, advice: String? = nil) {
        self.code = code
        self.message = message
        self.advice = advice
    }

    /// Any error that reaches the API.
    public init(_ error: any Error) {
        switch error {
        case let error as AgentError: self = error
        case let error as MigrationError: self.init(Code(error.kind), error.message, advice: error.advice)
        case let error as ContainerError: self.init(.badRequest, error.description)
        case let error as RuntimeError: self.init(.runtimeFailed, error.description)
        case let error as KernelError: self.init(.failed, error.description)
        default: self.init(.failed, "\(error)")
        }
    }

    public var description: String { message }

    /// The HTTP status that goes with the code.
    public var status: Int {
        switch code {
        case .badRequest: 400
        case .tooLarge: 413
        case .methodNotAllowed: 405
        case .notFound, .containerUnknown, .migrationUnknown, .hostUnknown: 404
        case .nameTaken, .busy, .wrongState, .containerExited, .cancelled, .inDoubt: 409
        case .refused: 422
        case .unreachable: 502
        case .runtimeFailed, .failed: 500
        case .agentNotRunning: 503
        }
    }

    static func unknown(_ container: String, on host: String) -> AgentError {
        AgentError(
            .containerUnknown, "host \(host) has no container \(container)", advice: "`apus ps` lists those it has")
    }
}

extension AgentError.Code {
    public init(_ kind: MigrationError.Kind) {
        switch kind {
        case .refused: self = .refused
        case .exited: self = .containerExited
        case .cancelled: self = .cancelled
        case .unreachable: self = .unreachable
        case .failed: self = .failed
        case .inDoubt: self = .inDoubt
        }
    }
}

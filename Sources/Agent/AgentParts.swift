// Where the parts that move and look into processes are plugged into the agent and the command line.
import Engine
import Logging
import Migration

/// What an agent is made of besides its books and its API.
public struct AgentParts: Sendable {
    /// Makes an agent's engine.
    public var engine: @Sendable (any MigrationHost, Logger) -> any MigrationEngine
    /// Looks into a process tree; nil: this build cannot.
    public var inspector: (any ProcessInspector)?
    /// What a guard process does (`apus guard ...`), given its arguments; returns its exit status.
    public var guardian: (@Sendable ([String]) throws -> Int32)?

    public init(
        engine: @escaping @Sendable (any MigrationHost, Logger) -> any MigrationEngine = { agent, logger in
            ApusEngine(agent) { logger.warning("\($0)") }
        },
        inspector: (any ProcessInspector)? = EngineInspector(),
        guardian: (@Sendable ([String]) throws -> Int32)? = Guard.main
    ) {
        self.engine = engine
        self.inspector = inspector
        self.guardian = guardian
    }

    /// Those of this build: the one place where they are chosen.
    public static let standard = AgentParts()
}

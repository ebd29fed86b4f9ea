// What Apus asks of a container runtime: one protocol for all of them.

/// The way a container is known to its runtime.
public struct ContainerState: Sendable, Hashable {
    public enum Status: String, Sendable, Codable { case creating, created, running, paused, stopped }
    public let name: String
    public let status: Status
    /// The first process, in the PID namespace of the runtime's caller; 0 when stopped.
    public let pid: Int32
    /// The bundle's folder.
    public let bundle: String
}

/// A runtime's refusal or failure, with its own words.
public struct RuntimeError: Error, Sendable, CustomStringConvertible {
    /// "creating container web with runc".
    public let operation: String
    /// What the runtime said, or why it could not be asked.
    public let words: String
    public var description: String { "\(operation): \(words)" }
}

/// A program that makes containers from OCI bundles. Every call blocks.
public protocol ContainerRuntime: Sendable {
    /// "runc", "crun".
    var kind: String { get }

    /// "1.1.5+ds1".
    func version() throws(RuntimeError) -> String

    /// Makes a container; its first process waits for `start`, and has its final PID.
    ///
    /// Standard input is /dev/null; standard output and error are appended to the file `log`, which is created
    /// (mode 0600) if need be. Never a pipe: whoever reads it would wait for the container's end.
    /// - Returns: the first process's PID.
    func create(_ name: String, bundle: String, log: String) throws(RuntimeError) -> Int32

    func start(_ name: String) throws(RuntimeError)

    /// Nil if the runtime knows no such container.
    func state(_ name: String) throws(RuntimeError) -> ContainerState?

    func kill(_ name: String, signal: Int32) throws(RuntimeError)

    /// Removes what the runtime holds of a container. No error if there is none.
    ///
    /// - Parameter force: kill it first if it runs.
    func delete(_ name: String, force: Bool) throws(RuntimeError)

    func list() throws(RuntimeError) -> [ContainerState]
}

// The way back of a migration that does not happen: many steps, each of which matters whatever becomes of the others.

/// Takes steps one after another, remembers which failed, and says so in the host's log.
struct WayBack {
    private let container: String
    private let log: (String) -> Void
    /// What could not be done, and why.
    private(set) var failures: [String] = []

    init(of container: String, _ log: @escaping (String) -> Void) { (self.container, self.log) = (container, log) }

    mutating func step(_ what: String, _ body: () throws -> Void) {
        do { try body() } catch {
            failures.append("\(what): \(error)")
            log("container \(container): \(what): \(error)")
        }
    }
}

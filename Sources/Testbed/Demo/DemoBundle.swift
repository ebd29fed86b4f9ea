// The demo's container: Debian's redis-server as it is.
extension Demo {
    /// What the container runs: nothing on disk, reachable from other hosts.
    static let command = [
        "/usr/bin/redis-server", "--save", "", "--appendonly", "no", "--bind", "0.0.0.0", "--protected-mode", "no",
    ]

    /// Builds root file system and configuration from the program and the libraries it needs; the bundle's path.
    func buildBundle(in folder: String) throws -> String {
        folder
    }
}

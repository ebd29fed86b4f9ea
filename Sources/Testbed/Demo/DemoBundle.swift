// The demo's container: Debian's redis-server as it is.
import Containers

extension Demo {
    /// What the container runs: nothing on disk, reachable from other hosts.
    static let command = [
        "/usr/bin/redis-server", "--save", "", "--appendonly", "no", "--bind", "0.0.0.0", "--protected-mode", "no",
    ]

    /// Builds root file system and configuration from the program and the libraries it needs; the bundle's path.
    static func buildBundle(in folder: String) throws -> String {
        if !fileExists(folder + "/config.json") {
            var builder = BundleBuilder(programs: [command[0]], arguments: command)
            builder.hostName = "redis"
            builder.workingDirectory = "/tmp"
            builder.openFiles = 4096
            try builder.build(in: folder)
        }
        return folder
    }
}

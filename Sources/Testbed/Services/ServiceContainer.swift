// A service of Workloads/ in a container of its own: one static program, one address.
import Agent
import Containers
import Glibc
import LinuxKernel

/// A container with a service, on the host where it runs.
struct ServiceContainer {
    let name: String
    private let place: WorkloadPlace
    /// nil: it does not run.
    private(set) var host: EdgeHost?

    init(_ name: String, _ place: WorkloadPlace) { (self.name, self.place) = (name, place) }

    var endpoint: ServiceEndpoint { ServiceEndpoint(address: place.address().ip, namespace: place.client) }

    /// Makes it and waits until the service takes connections.
    ///
    /// - Parameter program: its name in the folder of the programs.
    mutating func start(_ program: String, _ arguments: [String], openFiles: Int = 1024, on host: EdgeHost) async throws
    {
        let bundle = "\(place.folder)/bundle-\(name)"
        removeTree(bundle)
        try makeFolders(place.folder)
        var builder = BundleBuilder(programs: [], arguments: ["/bin/\(program)"] + arguments)
        builder.hostName = name
        builder.openFiles = UInt64(openFiles)
        try builder.build(in: bundle)
        let copy = try FileDescriptor(
            opening: bundle + "/rootfs/bin/\(program)", O_WRONLY | O_CREAT | O_EXCL, mode: 0o755)
        try SmallFile.read("\(place.programs)/\(program)").withUnsafeBytes { try copy.write($0) }
        let (address, mac) = place.address()
        try await AgentHosts().run(ScenarioContainer(name: name, bundle: bundle, address: address, mac: mac), on: host)
        self.host = host
        try endpoint.waitUntilReady(seconds: 120)
    }

    /// Where it ought to run after moves.
    mutating func moved(by moves: [Move]) { host = moves.end(of: name) ?? host }

    /// Removes it; does nothing if it does not run.
    mutating func remove() async throws {
        guard let host else { return }
        self.host = nil
        try await AgentHosts().remove(name, from: host)
    }
}

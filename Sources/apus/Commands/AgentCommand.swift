import Agent
import ArgumentParser
import Containers
import Dispatch
import Glibc
import LinuxKernel
import Logging
import Migration

struct AgentCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "agent", abstract: "Run the agent of this host until SIGTERM or Ctrl-C.")

    @Option(help: "This host's name; also APUS_HOST. Default: the machine's own.")
    var host: String?
    @Option(
        help: ArgumentHelp(
            "What outlives a reboot: containers, logs. Default: /var/lib/apus/HOST.", valueName: "folder"))
    var state: String?
    @Option(
        name: .customLong("run"),
        help: ArgumentHelp("What does not: sockets, journals. Default: /run/apus/HOST.", valueName: "folder"))
    var runFolder: String?
    @Option(help: ArgumentHelp("The runtime's own state. Default: runtime in the run folder.", valueName: "folder"))
    var runtimeRoot: String?
    @Option(help: ArgumentHelp("Cgroup of this host's containers. Default: /apus-HOST.", valueName: "cgroup"))
    var cgroupParent: String?
    @Option(
        help: ArgumentHelp(
            "Where other agents reach this one. Sessions are not authenticated yet, so anything but loopback must be a network that you trust.",
            valueName: "address:port"))
    var listen = PeerAddress("127.0.0.1")!
    @Option(help: "The bridge for networks of containers.")
    var bridge: String?
    @Option(
        help: ArgumentHelp("The bridge's port towards all other hosts that --peer gives no own.", valueName: "port"))
    var backhaul: String?
    @Option(
        help: ArgumentHelp(
            "A network namespace to live in, by its file or its name in /run/netns.", valueName: "namespace"))
    var netns: String?
    @Option(
        help: ArgumentHelp(
            "Another host, and the bridge's port towards it; may be repeated.",
            valueName: "name=address:port[,port=port]"))
    var peer: [String] = []
    @Option(
        help: ArgumentHelp(
            "A program that containers from other hosts may have the runtime call as a hook, with root's rights and any arguments; may be repeated, like all that follow.",
            valueName: "path"))
    var allowHook: [String] = []
    @Option(
        help: ArgumentHelp(
            "A file or folder of this host that containers from other hosts may mount and write to.", valueName: "path")
    )
    var allowBind: [String] = []
    @Option(
        help: ArgumentHelp(
            "The node of a device that containers from other hosts may use.", valueName: "path"))
    var allowDevice: [String] = []
    @Option(
        help: ArgumentHelp(
            "A kind of namespace that containers from other hosts may share with this one (ipc, mount, network, pid, uts), or the file of one that they may join.",
            valueName: "kind|path"))
    var allowNamespace: [String] = []
    @Option(
        help: ArgumentHelp(
            "A capability that containers from other hosts may have besides the usual ones: CAP_SYS_NICE.",
            valueName: "capability"))
    var allowCapability: [String] = []
    @Flag(
        help:
            "Containers from other hosts may have files of the kernel in /proc and /sys that runtimes mask or make read-only."
    )
    var allowKernelFiles = false
    @Option(help: ArgumentHelp("trace, debug, info, notice, warning or error.", valueName: "level"))
    var logLevel = "info"

    func validate() throws {
        let settings = try settings()
        if Logger.Level(rawValue: logLevel) == nil { throw ValidationError("no log level: \(logLevel)") }
        if bridge != nil && backhaul == nil && (peer.isEmpty || settings.ports.count < settings.peers.count) {
            throw ValidationError("--bridge needs --backhaul, or port= for each --peer")
        }
    }

    private func settings() throws -> AgentConfiguration {
        let name = host ?? HostOptions.environment ?? Self.machineName()
        var layout: HostLayout
        do { layout = try HostLayout(hostName: name, stateFolder: state ?? "/var/lib/apus/\(name)") } catch {
            throw ValidationError(error.description)
        }
        if let runFolder {
            layout.runFolder = runFolder
            layout.runtimeRoot = runFolder + "/runtime"
        }
        if let runtimeRoot { layout.runtimeRoot = runtimeRoot }
        if let cgroupParent { layout.cgroupParent = cgroupParent }
        var settings = AgentConfiguration(layout: layout)
        settings.migrationAddress = listen
        settings.bridge = bridge
        settings.backhaul = backhaul
        settings.allowances.hooks = allowHook
        settings.allowances.bindSources = allowBind
        settings.allowances.devices = allowDevice
        settings.allowances.namespaces = allowNamespace
        settings.allowances.capabilities = allowCapability.map { $0.uppercased() }
        settings.allowances.kernelFiles = allowKernelFiles
        settings.networkNamespace = netns.map { $0.contains("/") ? $0 : "/run/netns/\($0)" }
        for text in peer {
            let parts = text.split(separator: ",", omittingEmptySubsequences: false)
            let sides = parts[0].split(separator: "=", maxSplits: 1).map(String.init)
            guard sides.count == 2, !sides[0].isEmpty, let address = PeerAddress(sides[1]) else {
                throw ValidationError("--peer \(text): not NAME=ADDRESS:PORT with a numeric address")
            }
            settings.peers[sides[0]] = address
            if parts.count == 1 { continue }
            guard parts.count == 2, parts[1].hasPrefix("port="), (1...15).contains(parts[1].dropFirst(5).utf8.count)
            else { throw ValidationError("--peer \(text): after the comma, port=INTERFACE is expected") }
            settings.ports[sides[0]] = String(parts[1].dropFirst(5))
        }
        return settings
    }

    /// The first part of the machine's name, which may be longer than a host's name here.
    private static func machineName() -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        gethostname(&buffer, buffer.count - 1)
        let name = buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        return String(name.split(separator: ".").first ?? "host")
    }

    func run() throws {
        let settings = try settings()
        if geteuid() != 0 {
            throw AgentError(
                .failed, "an agent needs root's rights", advice: "run it as root; `apus doctor` tells what else")
        }
        Crash.endsAtOnce()
        // Everything up to here has happened on one thread.
        if let path = settings.networkNamespace { try Agent.enter(networkNamespace: path) }
        Interruption.block()
        signal(SIGPIPE, SIG_IGN)
        let level = Logger.Level(rawValue: logLevel)!
        LoggingSystem.bootstrap { label in
            var handler = StreamLogHandler.standardError(label: label)
            handler.logLevel = level
            return handler
        }
        let agent = Agent(settings, parts: .standard, logger: Logger(label: "apus.\(settings.layout.hostName)"))
        try wait { try await agent.start() }
        Interruption.wait()
        try wait { await agent.stop() }
    }

    /// Runs asynchronous work from this thread, which waits.
    private func wait(_ body: @escaping @Sendable () async throws -> Void) throws {
        let done = DispatchSemaphore(value: 0)
        // SAFETY: written before the semaphore is signalled, read after it was waited for.
        nonisolated(unsafe) var result: Result<Void, any Error>?
        Task.detached {
            do {
                try await body()
                result = .success(())
            } catch {
                result = .failure(error)
            }
            done.signal()
        }
        done.wait()
        try result!.get()
    }
}

// What is made at the destination before any memory goes there: the container's files, the container, its stub.
import Containers
import Engine
import Foundation
import LinuxKernel
import Memory

/// The container at the destination, but for its memory and its process, as the source has told of it.
final class Staging {
    private let source: SourceContext
    private let copier: Copier
    /// nil until `run`.
    private(set) var trees: SourceTrees?
    var clocks = HostClocks()
    var log: LogTail
    /// What was set of the container at run time, as the destination was told.
    var sentRunState = CarriedRunState()

    init(_ source: SourceContext, _ copier: Copier) {
        (self.source, self.copier) = (source, copier)
        log = LogTail(source.directory.log)
    }

    func run() throws {
        let (process, layout) = (source.process, source.layout)
        try source.openNetwork()
        try source.awaitGuard()
        do { try process.attach() } catch EngineError.obstacles(let list) {
            throw MigrationError.refused(list.map(\.description))
        }
        FaultPoint.reach(.sourceAttached)
        try source.network?.holdAddress()
        layout.excluded = process.injected
        // The engine's own mapping shows whether memory to come is locked.
        try layout.refresh(advice: true)
        if let locked = layout.obstacles.first(where: { $0.reason.contains("MCL_FUTURE") }) {
            throw MigrationError.refused([locked.description])
        }
        let trees = try SourceTrees(source.container, source.host) { [unowned source] in try source.hear() }
        self.trees = trees
        copier.sendFiles = { [connection = source.connection] in try trees.sendChanges(over: connection) }
        try trees.send(root: true, over: source.connection)
        try stage()
        source.enter(.staged)
        FaultPoint.reach(.sourceStaged)
    }

    /// Has the destination make a container with a stub and lay out its memory.
    func stage() throws {
        let layout = source.layout, connection = source.connection
        try layout.refresh()
        var stage = WireStage()
        stage.spaces = [copier.noteLayoutSent()]
        let process = source.process
        stage.processes = [
            try WireProcessOutline.with {
                $0.pid = try process.innerTID(of: process.pid)
                $0.threads = try process.learnThreads()
                $0.memory = MemoryIdentity.firstProcess.number
            }
        ]
        stage.log = try log.whole()
        stage.runState = try JSONEncoder().encode(source.search.runState)
        sentRunState = source.search.runState
        if let there = clocks.ofContainerThere { stage.clocks = WireClocks(there) }
        if let network = source.container.network {
            stage.neighbours = try JSONEncoder().encode(
                try ContainerNetwork.neighbours(network.spec, network.attachment))
        }
        try connection.send(.stage, stage)
        try connection.expect(.staged, WireStaged.self)
        // Temporary file systems are mounts of the stub.
        try trees!.send(root: false, over: connection)
    }
}

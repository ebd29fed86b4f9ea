// One host's side of a migration by CRIU: its images, its runc, and how CRIU is started there.
import CLinux
import Containers
import Glibc
import LinuxKernel

/// A host that checkpoints or restores a container.
struct CRIUHost {
    let host: EdgeHost
    let layout: HostLayout
    /// The container's folder, as the host's agent keeps it.
    let container: ContainerDirectory
    private let criu: CRIU
    private let runtime: Runc

    init(_ host: EdgeHost, _ layout: HostLayout, container: String, _ criu: CRIU) throws {
        (self.host, self.layout, self.criu) = (host, layout, criu)
        self.container = try layout.container(container)
        var runtime = Runc(root: layout.runtimeRoot)
        // Gigabytes of state take their time.
        runtime.timeLimit = .seconds(600)
        self.runtime = runtime
    }

    private var folder: String { "\(layout.runFolder)/criu-\(container.name)" }
    var images: String { folder + "/images" }
    private var program: String { folder + "/criu" }

    /// The folder of a dump's images, the how-many-th of the migration from 0; each adds to the one before.
    func images(_ round: Int) -> String { "\(images)/\(round)" }

    private func checkpoint(_ round: Int) -> Runc.Checkpoint {
        .init(images: images(round), logs: folder, program: program, parent: round > 0 ? "../\(round - 1)" : nil)
    }

    /// Makes the folder of the images, which are kept in memory: no disk is measured.
    func prepare() throws {
        try Folder.create(images)
        try check(clx_mount("criu", images, "tmpfs", 0, "mode=700"), "mounting a tmpfs on \(images)")
    }

    /// Removes it, and the images.
    func cleanUp() throws {
        let result = clx_umount(images, 2 /* MNT_DETACH */)
        // EINVAL: it was not mounted; ENOENT: it was not made.
        if result != -EINVAL && result != -ENOENT { try check(result, "unmounting \(images)") }
        try Folder.remove(folder)
    }

    /// Leaves images of what was written since the last round, and lets the container run on.
    func preDump(_ output: CRIUOutput?, round: Int) throws {
        try Folder.create(images(round))
        try configure(output)
        try runtime.preDump(container.name, checkpoint(round))
    }

    /// Ends the container and leaves its images.
    func makeCheckpoint(_ output: CRIUOutput?, round: Int) throws {
        try Folder.create(images(round))
        try configure(output)
        try runtime.checkpoint(container.name, checkpoint(round))
    }

    /// Makes the folder of a round's images, which finds those of the round before as CRIU leaves them.
    func makeRoom(forRound round: Int) throws {
        try Folder.create(images(round))
        if round > 0 { try checkC(symlink("../\(round - 1)", images(round) + "/parent"), "linking a round's images") }
    }

    /// Makes the container from the images; it runs when this returns.
    func restore(_ output: CRIUOutput?, round: Int) throws {
        try configure(output)
        try runtime.restore(container.name, bundle: container.bundle, checkpoint(round))
    }

    /// Ends what there is of the container here.
    func end() throws { try runtime.delete(container.name, force: true) }

    /// The container's first process.
    func pid() throws -> Int32 {
        guard let state = try runtime.state(container.name), state.status == .running else {
            throw TestbedError("container \(container.name) does not run on \(host.name)")
        }
        return state.pid
    }

    /// runc passes on neither CRIU's options nor descriptors: the program that it starts as `criu` is a script that
    /// adds both.
    private func configure(_ output: CRIUOutput?) throws {
        let descriptor: Int32 = 9
        // The other way to keep the network still, iptables, needs a program.
        let settings = "network-lock nftables\n" + (output?.lines(descriptor: descriptor) ?? "")
        let script = """
            #!/bin/sh
            exec \(descriptor)>>'\(container.log)'
            CRIU_CONFIG_FILE='\(folder)/criu.conf' exec '\(criu.program)' "$@"

            """
        try write(settings, to: folder + "/criu.conf", mode: 0o600)
        try write(script, to: program, mode: 0o700)
    }

    private func write(_ text: String, to path: String, mode: mode_t) throws {
        let file = try FileDescriptor(opening: path, O_WRONLY | O_CREAT | O_TRUNC, mode: mode)
        try Array(text.utf8).withUnsafeBytes { try file.write($0) }
    }
}

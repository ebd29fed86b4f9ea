// This host's folder for one container.
import CLinux
import FoundationEssentials
import Glibc
import LinuxKernel

/// `stateFolder/containers/NAME/`: what the runtime gets (`bundle/config.json`), the container's own configuration
/// (`config.json`), its root file system (`rootfs`), its output (`log`) and the agent's record (`record.json`).
public struct ContainerDirectory: Sendable, Equatable {
    public let name: String
    public let path: String

    public var bundle: String { path + "/bundle" }
    public var rootfs: String { path + "/rootfs" }
    public var log: String { path + "/log" }
    public var record: String { path + "/record.json" }
    var ownConfig: String { path + "/config.json" }

    public var exists: Bool { access(path, F_OK) == 0 }

    /// Makes the folder with an empty bundle and root file system.
    ///
    /// - Throws: `ContainerError` if the name is taken.
    public func create() throws {
        if mkdir(path, 0o700) != 0 {
            if errno == EEXIST {
                throw ContainerError(
                    "container \(name) exists on this host; choose another name, or remove it (`apus rm \(name)`)")
            }
            try checkC(Int32(-1), "creating folder \(path)")
        }
        try Folder.create(bundle)
        // Programs that gave up root must be able to enter their root file system.
        try checkC(mkdir(rootfs, 0o755), "creating folder \(rootfs)")
        try checkC(chmod(rootfs, 0o755), "setting the mode of \(rootfs)")
    }

    /// Removes it with everything it holds; no error if it is gone.
    public func remove() throws { try Folder.remove(path) }

    /// Stores the container's own configuration, and what the runtime gets.
    public func write(config: ContainerConfig, prepared: ContainerConfig) throws(KernelError) {
        try Self.replace(ownConfig, with: config.tree.json(pretty: true))
        try Self.replace(bundle + "/config.json", with: prepared.tree.json(pretty: true))
    }

    /// The container's own configuration, as it travels.
    public func config() throws(ContainerError) -> ContainerConfig {
        do {
            return try ContainerConfig(json: try SmallFile.read(ownConfig))
        } catch let error as KernelError {
            throw ContainerError("container \(name): \(error)")
        } catch let error as ContainerError {
            throw error
        } catch {
            throw ContainerError("container \(name): \(error)")
        }
    }

    /// Stores the agent's record, for good: should the host lose its power now, the record tells that the container was
    /// here.
    public func write(record value: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        try Self.replace(record, with: [UInt8](encoder.encode(value)))
        for path in [record, path] {
            let file = try FileDescriptor(opening: path, O_RDONLY)
            try checkC(fsync(file.number), "writing \(path) to its disk")
        }
    }

    /// The agent's record; nil if there is none.
    public func readRecord<T: Decodable>(as type: T.Type) throws -> T? {
        guard access(record, F_OK) == 0 else { return nil }
        return try JSONDecoder().decode(type, from: Data(try SmallFile.read(record)))
    }

    /// A reader sees the old content or the new, never half of it. Of several that replace a file at once the last one
    /// counts.
    static func replace(_ path: String, with bytes: [UInt8]) throws(KernelError) {
        // Migrations of one host share files, each on its own thread.
        let fresh = "\(path).\(clx_gettid()).new"
        let file = try FileDescriptor(opening: fresh, O_WRONLY | O_CREAT | O_TRUNC)
        try bytes.withUnsafeBufferPointer { buffer throws(KernelError) in
            try file.write(UnsafeRawBufferPointer(buffer))
        }
        try checkC(rename(fresh, path), "renaming \(fresh)")
    }
}

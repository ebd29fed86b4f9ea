// An OCI bundle's config.json: read without loss, and turned into what a host runs.
import LinuxKernel

/// Something about a container that Apus cannot take, and what to do about it.
public struct ContainerError: Error, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// The configuration of a container (config.json of the OCI runtime specification): a JSON tree of which Apus
/// changes only what it must, so that keys it does not know survive.
///
/// The *container's own* configuration travels unchanged from host to host; each host derives from it what its
/// runtime gets (`preparedForRun`, `preparedForDestination`).
public struct ContainerConfig: Sendable, Equatable {
    public var tree: JSONValue

    /// Where a host puts a container.
    public struct Placement: Sendable, Equatable {
        /// Absolute path of the root file system.
        public var root: String
        /// A file that stands for a network namespace; nil leaves what the configuration says.
        public var networkNamespace: String?
        /// The cgroup below each controller's root: "/parent/name".
        public var cgroup: String
        /// The folder that relative sources of bind mounts start from.
        public var bundle: String

        public init(root: String, networkNamespace: String?, cgroup: String, bundle: String) {
            self.root = root
            self.networkNamespace = networkNamespace
            self.cgroup = cgroup
            self.bundle = bundle
        }
    }

    public struct Mount: Sendable, Equatable {
        public let destination: String
        public let type: String
        public let source: String
        public let options: [String]
        /// Whether it shows a path of the host.
        public var isBind: Bool { type == "bind" || options.contains("bind") || options.contains("rbind") }
    }

    /// Parses config.json.
    public init(json: [UInt8]) throws(ContainerError) {
        do {
            tree = try JSONValue(json: json)
        } catch {
            throw ContainerError("reading config.json: not JSON (\(error))")
        }
        guard case .object = tree else { throw ContainerError("reading config.json: not a JSON object") }
        guard tree["root"]?["path"]?.string?.isEmpty == false else {
            throw ContainerError("reading config.json: root.path is missing")
        }
        guard tree["process"]?["args"]?.elements.isEmpty == false else {
            throw ContainerError("reading config.json: process.args is missing")
        }
    }

    /// Reads `folder`/config.json.
    public init(bundle folder: String) throws(ContainerError) {
        let bytes: [UInt8]
        do {
            bytes = try SmallFile.read(folder + "/config.json")
        } catch {
            throw ContainerError("\(folder) is not a bundle: \(error)")
        }
        try self.init(json: bytes)
    }

    /// The canonical text, which `digest` covers.
    public func json() -> [UInt8] { tree.json() }

    /// SHA-256 of the canonical text: two hosts that compute the same hold the same configuration.
    public var digest: Digest { Digest(of: json()) }

    /// The root file system's absolute path, for a bundle in `folder`.
    public func root(inBundle folder: String) -> String {
        absolute(tree["root"]?["path"]?.string ?? "rootfs", folder)
    }

    /// Whether the container cannot write to its root file system.
    public var rootIsReadOnly: Bool { tree["root"]?["readonly"]?.bool ?? false }

    public var arguments: [String] { tree["process"]?["args"]?.strings ?? [] }

    public var mounts: [Mount] {
        (tree["mounts"]?.elements ?? []).map {
            Mount(
                destination: $0["destination"]?.string ?? "", type: $0["type"]?.string ?? "",
                source: $0["source"]?.string ?? "", options: $0["options"]?.strings ?? [])
        }
    }

    /// The kinds of namespace the container has of its own ("pid", "mount" ...), sorted.
    public var namespaces: [String] {
        (tree["linux"]?["namespaces"]?.elements ?? []).compactMap { $0["type"]?.string }.sorted()
    }

    /// Where the tmpfs mounts with content are: all but /dev, which the runtime fills. Sorted, so parents come first.
    public var temporaryFileSystems: [String] {
        mounts.filter { $0.type == "tmpfs" && $0.destination != "/dev" }.map(\.destination).sorted()
    }
}

/// An absolute path, from a path that may be relative to `folder`.
func absolute(_ path: String, _ folder: String) -> String { path.hasPrefix("/") ? path : "\(folder)/\(path)" }

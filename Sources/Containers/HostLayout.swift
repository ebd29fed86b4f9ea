// Where a host keeps what it knows: its folders, its runtime's root, its cgroup.
import Glibc
import LinuxKernel

/// The places of one host. Two hosts on one machine differ in every one of them.
public struct HostLayout: Codable, Sendable, Equatable {
    public var hostName: String
    /// Outlives a reboot: root file systems, logs, the content cache.
    public var stateFolder: String
    /// Ends with the machine (tmpfs as a rule): journals, sockets, undo lists.
    public var runFolder: String
    /// The runtime's `--root`.
    public var runtimeRoot: String
    /// Cgroup of this host's containers below each controller's root: "/apus-edge-a".
    public var cgroupParent: String

    /// Everything but the name and the state folder follows from the name.
    public init(hostName: String, stateFolder: String) throws(ContainerError) {
        try checkName(hostName, "host")
        self.hostName = hostName
        self.stateFolder = stateFolder
        runFolder = "/run/apus/\(hostName)"
        runtimeRoot = "/run/apus/\(hostName)/runtime"
        cgroupParent = "/apus-\(hostName)"
    }

    public var containersFolder: String { stateFolder + "/containers" }
    public var cacheFolder: String { stateFolder + "/cache" }
    /// The file that remembers digests of files seen.
    public var digestCacheFile: String { stateFolder + "/digests" }

    /// Makes the folders (mode 0700).
    public func create() throws(KernelError) {
        for folder in [stateFolder, containersFolder, cacheFolder, runFolder] { try Folder.create(folder) }
    }

    /// What this host is known by over reboots and renewals of its address: a random number in its state folder.
    public func identity() throws(KernelError) -> String {
        let path = stateFolder + "/identity"
        if let known = try? SmallFile.text(path), !known.isEmpty { return known }
        let fresh = (0..<4).map { _ in String(UInt32.random(in: 0...UInt32.max), radix: 16) }.joined(separator: "-")
        try ContainerDirectory.replace(path, with: Array(fresh.utf8))
        return fresh
    }

    /// The cgroup of a container of this host.
    public func cgroup(of name: String) -> String { "\(cgroupParent)/\(name)" }

    /// A container's folder, which need not exist.
    public func container(_ name: String) throws(ContainerError) -> ContainerDirectory {
        try checkName(name, "container")
        return ContainerDirectory(name: name, path: "\(containersFolder)/\(name)")
    }

    /// The folders of all containers this host knows, by name.
    public func containers() throws(KernelError) -> [ContainerDirectory] {
        try Folder.names(containersFolder).sorted().map {
            ContainerDirectory(name: $0, path: "\(containersFolder)/\($0)")
        }
    }
}

/// A name that may stand in paths, cgroups and links: 1 to 63 letters, digits, '-', '_' and '.', the first of them a
/// letter or digit.
///
/// - Parameter kind: what it names, for the error: "container", "host".
public func checkName(_ name: String, _ kind: String) throws(ContainerError) {
    let isPlain: (UInt8) -> Bool = { ($0 | 32) >= 97 && ($0 | 32) <= 122 || $0 >= 48 && $0 <= 57 }
    guard let first = name.utf8.first, name.utf8.count <= 63, isPlain(first),
        name.utf8.allSatisfy({ isPlain($0) || [45, 46, 95].contains($0) })
    else {
        throw ContainerError(
            "\"\(name)\" cannot be a \(kind)'s name: 1 to 63 letters, digits, '-', '_' and '.', beginning with a "
                + "letter or digit")
    }
}

/// Folders of our own, by path. Nothing here may be used inside a container's tree: paths are followed as they are.
public enum Folder {
    /// Makes a folder (mode 0700) and those above it. One that exists is left as it is.
    public static func create(_ path: String) throws(KernelError) {
        var partial = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            partial += "/\(part)"
            if mkdir(partial, 0o700) != 0 && errno != EEXIST { try checkC(Int32(-1), "creating folder \(partial)") }
        }
    }

    /// What is in a folder, unsorted; names that are not UTF-8 are left out.
    public static func names(_ path: String) throws(KernelError) -> [String] {
        guard let stream = opendir(path) else {
            throw KernelError("reading folder \(path)", Errno(errno))
        }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                String(validating: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if let name, name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    /// Removes a folder with all it holds, without following symbolic links and without crossing into mounts.
    /// One that is gone already is no error.
    public static func remove(_ path: String) throws(KernelError) {
        if access(path, F_OK) != 0 && errno == ENOENT { return }
        try TreeRoot(folder: path).removeContents()
        try checkC(rmdir(path), "removing folder \(path)")
    }
}

// Where the runtime will mount and make devices in a root file system: real folders, so that nothing leads it
// elsewhere.
import Glibc
import LinuxKernel

extension ContainerConfig {
    /// What keeps the runtime from working in this root file system and nowhere else; empty: nothing.
    ///
    /// The runtime prepares a root from outside, as root, and follows the symbolic links that it finds there: one at
    /// /dev had it make devices in a folder of the host. Nothing may change the tree between this and the runtime's
    /// work.
    public func mountPointObstacles(in rootfs: String) throws -> [String] {
        let root = try TreeRoot(folder: rootfs)
        // The runtime makes its own devices and links in /dev, whether the configuration mounts anything there or not.
        var folders: Set<String> = ["/dev"], places: Set<String> = [Self.stubPath]
        for mount in mounts {
            if mount.isBind { places.insert(mount.destination) } else { folders.insert(mount.destination) }
        }
        for device in tree["linux"]?["devices"]?.elements ?? [] {
            if let path = device["path"]?.string {
                folders.insert(String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]))
            }
        }
        var found: [String] = []
        for path in folders.union(places).sorted() {
            var part: TreePath = []
            let names = path.utf8.split(separator: UInt8(ascii: "/"))
            for (index, name) in names.enumerated() {
                part += (part.isEmpty ? [] : [UInt8(ascii: "/")]) + Array(name)
                // What is not there the runtime makes.
                guard let status = try root.status(part) else { break }
                let isFolder = status.st_mode & S_IFMT == S_IFDIR
                let isLink = status.st_mode & S_IFMT == S_IFLNK
                if isFolder || !isLink && index == names.count - 1 && places.contains(path) { continue }
                found.append(
                    "mount point \(path): \(text(part)) in the container's root file system is \(isLink ? "a symbolic link" : "no folder"), where a folder has to be"
                )
                break
            }
        }
        return found
    }
}

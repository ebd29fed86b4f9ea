// Extended attributes of a folder's entry, without opening it and without following a link.
import CLinux
import Glibc
import LinuxKernel

enum ExtendedAttributes {
    /// Names of a host, not of the tree: overlayfs's own.
    private static let ofTheHost = Array("trusted.overlay.".utf8)

    /// The path by which the kernel finds an entry of an open folder.
    private static func path(_ folder: FileDescriptor, _ name: [CChar]) -> [CChar] {
        "/proc/self/fd/\(folder.number)/".utf8CString.dropLast() + name
    }

    /// All that travel, sorted by name.
    static func read(
        _ folder: FileDescriptor, _ name: [CChar], _ what: @autoclosure () -> String
    ) throws(KernelError) -> [FileEntry.Attribute] {
        let path = path(folder, name)
        let size = clx_llistxattr(path, nil, 0)
        if size == 0 || size == -Int(EOPNOTSUPP) || size == -Int(ENOENT) { return [] }
        try check(size, "listing the extended attributes of \(what())")
        var names = [CChar](repeating: 0, count: size + 4096)
        let count = try check(clx_llistxattr(path, &names, names.count), "listing the extended attributes of \(what())")
        var attributes: [FileEntry.Attribute] = []
        for part in names[..<count].split(separator: 0) {
            let bytes = part.map { UInt8(bitPattern: $0) }
            if bytes.starts(with: ofTheHost) { continue }
            var value = [UInt8](repeating: 0, count: 65536)
            let length = clx_lgetxattr(path, Array(part) + [0], &value, value.count)
            if length == -Int(ENODATA) { continue }
            try check(length, "reading extended attribute \(String(decoding: bytes, as: UTF8.self)) of \(what())")
            attributes.append(.init(name: bytes, value: Array(value[..<length])))
        }
        return attributes.sorted { $0.name.lexicographicallyPrecedes($1.name) }
    }

    /// Makes an entry's attributes those given.
    static func write(
        _ wanted: [FileEntry.Attribute], _ folder: FileDescriptor, _ name: [CChar], _ what: @autoclosure () -> String
    ) throws(KernelError) {
        let present = try read(folder, name, what())
        if present == wanted { return }
        let path = path(folder, name)
        for attribute in present where !wanted.contains(where: { $0.name == attribute.name }) {
            let label = String(decoding: attribute.name, as: UTF8.self)
            try check(
                clx_lremovexattr(path, cString(attribute.name)), "removing extended attribute \(label) of \(what())")
        }
        for attribute in wanted where !present.contains(attribute) {
            let label = String(decoding: attribute.name, as: UTF8.self)
            try check(
                clx_lsetxattr(path, cString(attribute.name), attribute.value, attribute.value.count),
                "setting extended attribute \(label) of \(what())")
        }
    }
}

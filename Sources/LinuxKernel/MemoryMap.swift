// /proc/PID/maps: the areas of an address space.
import CLinux
import Glibc

/// One line of /proc/PID/maps.
public struct MapEntry: Sendable, Hashable {
    public var range: AddressRange
    public var readable, writable, executable, shared: Bool
    /// Bytes into the file.
    public var offset: UInt64
    public var device: UInt64
    public var inode: UInt64
    /// Path or the kernel's name in brackets; "" for plain anonymous memory.
    public var name: String

    /// PROT_*.
    public var protection: UInt32 { (readable ? 1 : 0) | (writable ? 2 : 0) | (executable ? 4 : 0) }
}

/// Reads the maps of one process again and again; unchanged text is not parsed twice.
public final class MemoryMapReader {
    private let file: FileDescriptor
    private var text: [UInt8] = []
    private var spare = [UInt8](repeating: 0, count: 1 << 16)
    /// As of the last `refresh`.
    public private(set) var entries: [MapEntry] = []

    public init(pid: Int32) throws(KernelError) { file = try FileDescriptor(opening: "/proc/\(pid)/maps", O_RDONLY) }

    /// Reads the maps; true if they differ from the last reading.
    ///
    /// The kernel gives them in pieces, between which a program that runs may map something over what was just read: a
    /// reading in which mappings overlap is none, and is made again.
    public func refresh() throws(KernelError) -> Bool {
        for _ in 0..<1000 {
            if try !read() { return false }
            if zip(entries, entries.dropFirst()).allSatisfy({ $0.range.upperBound <= $1.range.lowerBound }) {
                return true
            }
            text = []
        }
        throw KernelError("reading memory maps that change all the time", .again)
    }

    /// True if they differ from the last reading that was one.
    private func read() throws(KernelError) -> Bool {
        var length = 0
        while true {
            if length == spare.count { spare += [UInt8](repeating: 0, count: spare.count) }
            let n = spare.withUnsafeMutableBytes {
                clx_pread(file.number, $0.baseAddress! + length, $0.count - length, UInt64(length))
            }
            if try check(n, "reading memory maps") == 0 { break }
            length += n
        }
        if length == text.count, memcmp(text, spare, length) == 0 { return false }
        text = Array(spare[..<length])
        entries = Self.parse(text)
        return true
    }

    static func parse(_ text: [UInt8]) -> [MapEntry] {
        var entries: [MapEntry] = []
        text.withUnsafeBufferPointer { bytes in
            var at = 0
            func hex(_ end: UInt8) -> UInt64 {
                var value: UInt64 = 0
                while at < bytes.count, bytes[at] != end {
                    let c = bytes[at]
                    value = value << 4 | UInt64(c <= 57 ? c - 48 : c - 87)
                    at += 1
                }
                at += 1
                return value
            }
            while at < bytes.count {
                let start = hex(UInt8(ascii: "-")), end = hex(UInt8(ascii: " "))
                let flags = at
                at += 5
                let offset = hex(UInt8(ascii: " "))
                let major = hex(UInt8(ascii: ":")), minor = hex(UInt8(ascii: " "))
                var inode: UInt64 = 0
                while at < bytes.count, bytes[at] >= 48, bytes[at] <= 57 {
                    inode = inode * 10 + UInt64(bytes[at] - 48)
                    at += 1
                }
                while at < bytes.count, bytes[at] == 32 { at += 1 }
                let name = at
                while at < bytes.count, bytes[at] != 10 { at += 1 }
                entries.append(
                    MapEntry(
                        range: start..<end, readable: bytes[flags] == 114, writable: bytes[flags + 1] == 119,
                        executable: bytes[flags + 2] == 120, shared: bytes[flags + 3] == 115, offset: offset,
                        device: major << 8 | minor, inode: inode,
                        name: name == at ? "" : String(decoding: bytes[name..<at], as: UTF8.self)))
                at += 1
            }
        }
        return entries
    }
}

// Where the fields of the running kernel's structures are, by its own type information (BTF).
import Glibc

/// The types in /sys/kernel/btf/vmlinux.
struct KernelTypes {
    private let bytes: [UInt8]
    private let strings: Int
    /// Offsets of the types' descriptions, by their number.
    private var types: [Int] = [0]

    init() throws(KernelError) {
        let path = "/sys/kernel/btf/vmlinux"
        let bytes = try SmallFile.read(path)
        self.bytes = bytes
        func word(_ offset: Int) -> Int { Self.word(bytes, offset) }
        // struct btf_header: magic, version, flags, its length, then offset and length of the types and of the strings.
        guard bytes.count > 24, bytes[0] == 0x9f, bytes[1] == 0xeb else {
            throw KernelError("reading \(path)", .invalid)
        }
        let header = word(4)
        strings = header + word(16)
        var at = header + word(8)
        let end = at + word(12)
        guard end <= bytes.count, strings + word(20) <= bytes.count else {
            throw KernelError("reading \(path)", .invalid)
        }
        while at + 12 <= end {
            types.append(at)
            let (kind, count) = (word(at + 4) >> 24 & 31, word(at + 4) & 0xffff)
            at += 12
            switch kind {
            case 1, 14, 17: at += 4  // integer, variable, declaration tag
            case 3: at += 12  // array
            case 4, 5, 15, 19: at += 12 * count  // structure, union, section, 64-bit enumeration
            case 6, 13: at += 8 * count  // enumeration, function prototype
            default: break
            }
        }
    }

    /// The offset of a field in a structure, in bytes; those of nameless structures and unions in it count as its own.
    func offset(of field: String, in structure: String) throws(KernelError) -> Int16 {
        let name = Array(structure.utf8)
        guard let type = types.indices.dropFirst().first(where: { kind($0) == 4 && hasName(types[$0], name) }),
            let offset = find(Array(field.utf8), in: type), let small = Int16(exactly: offset)
        else { throw KernelError("looking for \(structure).\(field) among the kernel's types", .noEntry) }
        return small
    }

    private func find(_ field: [UInt8], in type: Int) -> Int? {
        let info = Self.word(bytes, types[type] + 4)
        for member in 0..<(info & 0xffff) {
            let at = types[type] + 12 + 12 * member
            let bits = Self.word(bytes, at + 8)
            // With the flag the upper byte is the size of a bit field.
            let offset = (info >> 31 & 1 == 1 ? bits & 0xff_ffff : bits) / 8
            if hasName(at, field) { return offset }
            let inner = Self.word(bytes, at + 4)
            if hasName(at, []), types.indices.contains(inner), [4, 5].contains(kind(inner)),
                let found = find(field, in: inner)
            {
                return offset + found
            }
        }
        return nil
    }

    private func kind(_ type: Int) -> Int { Self.word(bytes, types[type] + 4) >> 24 & 31 }

    /// Does the description at an offset begin with a reference to this name?
    private func hasName(_ at: Int, _ name: [UInt8]) -> Bool {
        let start = strings + Self.word(bytes, at)
        guard start + name.count < bytes.count, bytes[start + name.count] == 0 else { return false }
        return bytes[start..<start + name.count].elementsEqual(name)
    }

    private static func word(_ bytes: [UInt8], _ offset: Int) -> Int {
        guard offset + 4 <= bytes.count else { return 0 }
        return bytes.withUnsafeBytes { Int($0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
    }
}

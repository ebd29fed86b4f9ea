// The kernel's own code and data in every address space: [vdso] and [vvar].
import CLinux
import Glibc

/// The vDSO of a process as it decides whether the process can move to another kernel.
///
/// Programs hold addresses inside the vDSO (a resolved clock_gettime, a return address on a stack), so both hosts
/// must map the same bytes; trampolines for different builds are not written yet.
public struct VDSO: Codable, Sendable, Hashable {
    /// FNV-1a of the mapped bytes, in hexadecimal. It tells builds apart; it is no protection against forgery.
    public var digest: String
    /// The special areas in ascending order, "[vvar] 16384".
    public var layout: [String]

    public init(digest: String, layout: [String]) {
        self.digest = digest
        self.layout = layout
    }

    /// Reads that of a process; the bytes are the same in every process of one kernel.
    public init(pid: Int32 = getpid()) throws(KernelError) {
        layout = []
        var code: [UInt8] = []
        for line in try SmallFile.text("/proc/\(pid)/maps").split(separator: "\n") {
            let words = line.split(separator: " ")
            guard let name = words.last, name.hasPrefix("[vvar") || name == "[vdso]" else { continue }
            let ends = words[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
            guard ends.count == 2, ends[1] > ends[0], ends[1] - ends[0] <= 1 << 20 else { continue }
            layout.append("\(name) \(ends[1] - ends[0])")
            guard name == "[vdso]" else { continue }
            let memory = try FileDescriptor(opening: "/proc/\(pid)/mem", O_RDONLY)
            var bytes = [UInt8](repeating: 0, count: Int(ends[1] - ends[0]))
            let read = try check(
                clx_pread(memory.number, &bytes, bytes.count, ends[0]), "reading the vDSO of pid \(pid)")
            code += bytes[..<read]
        }
        digest = String(FNV1a.hash64(code), radix: 16)
    }
}

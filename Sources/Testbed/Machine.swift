import Containers
import FoundationEssentials
import Glibc
import LinuxKernel

/// The machine that results come from.
public struct Machine: Codable, Sendable {
    public var kernel: String
    public var processors: Int
    public var processor: String
    /// Bytes.
    public var memory: UInt64

    /// SHA-256 of a program's file, in hexadecimal digits.
    package static func digest(ofProgram path: String) throws -> String {
        let data = try Data(contentsOf: URL(filePath: path), options: .alwaysMapped)
        var hasher = Digest.Hasher()
        data.withUnsafeBytes { hasher.update($0) }
        return hasher.finish().description
    }

    /// Names edge hosts that are other machines, with what they are, beside this one's processor.
    public mutating func add(host: String, _ words: String) { processor += "; \(host): \(words)" }
    /// Whether a processor's text names others.
    public static func hasOthers(_ processor: String) -> Bool { processor.contains("; ") }

    public static func here() -> Machine {
        let kernel = (try? SmallFile.text("/proc/sys/kernel/osrelease")) ?? "?"
        let cpu =
            ((try? SmallFile.text("/proc/cpuinfo")) ?? "").split(separator: "\n")
            .first { $0.hasPrefix("model name") }?.split(separator: ":").last.map(String.init) ?? "?"
        let pages = sysconf(Int32(_SC_PHYS_PAGES))
        return Machine(
            kernel: kernel, processors: sysconf(Int32(_SC_NPROCESSORS_ONLN)),
            processor: String(cpu.drop { $0 == " " }), memory: UInt64(pages) * UInt64(sysconf(Int32(_SC_PAGESIZE))))
    }
}

// What has to be equal on both hosts: a program may have looked at its processor, and its vDSO stays as it is.
import CLinux
import Engine
import Containers
import Glibc
import LinuxKernel

enum HostFacts {
    /// Facts by name.
    static func collect() throws -> [String: String] {
        var facts: [String: String] = [:]
        var name = utsname()
        uname(&name)
        facts["architecture"] = withUnsafeBytes(of: &name.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let processor = try SmallFile.text("/proc/cpuinfo").split(separator: "\n").first { $0.hasPrefix("flags") } ?? ""
        facts["processor features"] = Digest(of: [UInt8](processor.utf8)).description
        facts["vDSO"] = try vdso()
        return facts
    }

    /// The digest of this process's vDSO and the sizes of what lies around it.
    private static func vdso() throws -> String {
        let reader = try MemoryMapReader(pid: getpid())
        _ = try reader.refresh()
        let special = reader.entries.filter { ["[vdso]", "[vvar]", "[vvar_vclock]"].contains($0.name) }
        guard let code = special.first(where: { $0.name == "[vdso]" }) else { return "none" }
        let bytes = try ProcessMemory(pid: getpid()).peek(code.range.count, at: code.range.lowerBound)
        return Digest(of: bytes).description + " " + special.map { "\($0.name) \($0.range.count)" }.joined(separator: " ")
    }

    /// What of the source's facts is different here, in words.
    static func differences(from source: [String: String]) throws -> [String] {
        let own = try collect()
        return source.keys.sorted().filter { source[$0] != own[$0] }.map {
            "\($0) differs (source: \(source[$0]!.prefix(60)), here: \((own[$0] ?? "none").prefix(60)))"
        }
    }
}

extension WireMappedFile {
    /// The files that a process has mapped, with their digests.
    static func all(of layout: AddressSpaceReader, pid: Int32, host: SessionHost) throws -> [WireMappedFile] {
        let cache = DigestCache(file: host.layout.digestCacheFile)
        defer { try? cache.save() }
        return try MappedFiles.describe(layout.files, root: TreeRoot(process: pid, folder: "/"), cache: cache).map {
            var file = WireMappedFile()
            (file.path, file.size, file.digest) = ($0.path, $0.size, $0.digest ?? "")
            return file
        }
    }
}

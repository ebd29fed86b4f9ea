// A CRIU that works on this machine, the baseline that Apus is compared with.
import Glibc
import LinuxKernel

/// A CRIU.
public struct CRIU: Sendable {
    /// Absolute path.
    public let program: String
    /// "4.2.1".
    public let version: String

    /// Where scripts/criu leaves one.
    public static let folder = ".build/criu"

    /// The one in a folder, else that in PATH; which must do on this kernel.
    ///
    /// - Throws: why there is none.
    public static func find(in folder: String = Self.folder) throws -> CRIU {
        var reasons: [String] = []
        for path in ["\(folder)/criu", Subprocess.find("criu")].compactMap(\.self) where access(path, X_OK) == 0 {
            do { return try CRIU(path) } catch { reasons.append("\(error)") }
        }
        if reasons.isEmpty { reasons = ["none in \(folder) or PATH"] }
        throw TestbedError("no working CRIU (\(reasons.joined(separator: "; "))): `make criu` gets one")
    }

    private init(_ path: String) throws {
        // runc starts it from another folder.
        guard let absolute = realpath(path, nil) else { throw KernelError("finding \(path)", Errno(errno)) }
        defer { free(absolute) }
        program = String(cString: absolute)
        guard let version = Self.version(in: try Subprocess.run([program, "--version"]).text) else {
            throw TestbedError("\(program) does not say its version")
        }
        self.version = version
        try Subprocess.run([program, "check"])
    }

    /// Why memory cannot be dumped in rounds here: CRIU finds what was written by soft-dirty bits, which a kernel may
    /// lack. Nil: it can.
    public func obstacleToRounds() -> String? {
        do {
            try Subprocess.run([program, "check", "--feature", "mem_dirty_track"])
            return nil
        } catch { return "this kernel has no soft-dirty bits, by which CRIU finds what was written" }
    }

    /// From "Version: 4.2.1".
    static func version(in text: String) -> String? {
        text.split(separator: "\n").lazy.compactMap { line in
            line.hasPrefix("Version: ") ? String(line.dropFirst(9)) : nil
        }.first
    }
}

/// The file that a container's output goes to. It lies outside of the container's mounts, where CRIU does not look, so
/// CRIU has to be told of it; at the destination another file takes its place.
struct CRIUOutput: Equatable {
    var mount: UInt64
    var inode: UInt64

    /// nil: the process's standard output is not the file `log`.
    init?(of pid: Int32, log: String) throws {
        var (output, file) = (stat(), stat())
        guard stat("/proc/\(pid)/fd/1", &output) == 0, stat(log, &file) == 0, output.st_ino == file.st_ino,
            output.st_dev == file.st_dev
        else { return nil }
        guard let mount = Self.mount(in: try SmallFile.text("/proc/\(pid)/fdinfo/1")) else {
            throw TestbedError("/proc/\(pid)/fdinfo/1 names no mount")
        }
        (self.mount, inode) = (mount, UInt64(output.st_ino))
    }

    init(mount: UInt64, inode: UInt64) { (self.mount, self.inode) = (mount, inode) }

    static func mount(in text: String) -> UInt64? {
        text.split(separator: "\n").first { $0.hasPrefix("mnt_id:") }
            .flatMap { UInt64($0.dropFirst(7).drop { $0 == "\t" || $0 == " " }) }
    }

    /// CRIU's name for it.
    private var name: String { "file[\(String(mount, radix: 16)):\(String(inode, radix: 16))]" }

    /// Lines of CRIU's configuration: the file is not part of a dump; in a restore the descriptor takes its place.
    func lines(descriptor: Int32) -> String { "external \(name)\ninherit-fd fd[\(descriptor)]:\(name)\n" }
}

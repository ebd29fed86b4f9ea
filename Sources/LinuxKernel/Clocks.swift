// Time namespaces: what a process's clocks show besides the kernel's own (time_namespaces(7)).
import Glibc

/// CLOCK_MONOTONIC and CLOCK_BOOTTIME, nanoseconds: what is added to the kernel's own for a process, or what they show.
public struct Clocks: Hashable, Sendable {
    public var monotonic: Int64
    public var boottime: Int64
    public static let none = Clocks(monotonic: 0, boottime: 0)

    public init(monotonic: Int64, boottime: Int64) { (self.monotonic, self.boottime) = (monotonic, boottime) }

    /// Whether this kernel has time namespaces.
    public static var areSupported: Bool { access("/proc/self/timens_offsets", F_OK) == 0 }

    /// Those of a process whose children will have the same; none on a kernel without time namespaces.
    ///
    /// - Parameter pid: nil: this process.
    public static func offsets(of pid: Int32? = nil) throws(KernelError) -> Clocks {
        guard areSupported else { return .none }
        let path = "/proc/\(pid.map { "\($0)" } ?? "self")/timens_offsets"
        guard let offsets = Clocks(text: try SmallFile.text(path)) else {
            throw KernelError("reading \(path)", .invalid)
        }
        return offsets
    }

    /// From the file's lines: a clock's name, seconds, nanoseconds.
    public init?(text: String) {
        var found: [Substring: Int64] = [:]
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count == 3, let seconds = Int64(fields[1]), let rest = Int64(fields[2]) else { return nil }
            found[fields[0]] = seconds * 1_000_000_000 + rest
        }
        guard let monotonic = found["monotonic"], let boottime = found["boottime"] else { return nil }
        self.init(monotonic: monotonic, boottime: boottime)
    }

    /// The lines that set them. Seconds may be negative, nanoseconds are not.
    var text: String {
        [("monotonic", monotonic), ("boottime", boottime)].map { name, offset in
            let whole = (offset - (offset < 0 ? 999_999_999 : 0)) / 1_000_000_000
            return "\(name) \(whole) \(offset - whole * 1_000_000_000)\n"
        }.joined()
    }

    /// Gives them to the time namespace that a process has made for its children and nobody has entered yet.
    public func set(forChildrenOf pid: Int32) throws(KernelError) {
        try SmallFile.write(text, to: "/proc/\(pid)/timens_offsets")
    }

    /// What the clocks show to this process, nanoseconds.
    public static func now() -> Clocks {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Clocks(
            monotonic: monotonicNow(), boottime: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }

    public static func + (a: Clocks, b: Clocks) -> Clocks {
        Clocks(monotonic: a.monotonic + b.monotonic, boottime: a.boottime + b.boottime)
    }
    public static func - (a: Clocks, b: Clocks) -> Clocks {
        Clocks(monotonic: a.monotonic - b.monotonic, boottime: a.boottime - b.boottime)
    }
}

// Where page faults can be heard of in this kernel, and in which form.
import CLinux
import Glibc
import LinuxKernel

/// What tells of a page fault.
public enum FaultSource: String, Sendable, Codable, CaseIterable {
    /// The software events "minor-faults" and "major-faults". They come when the fault is done, so a scan that begins
    /// after the event finds the page; faults of the kernel on the program's behalf (read(2) into a buffer) are among
    /// them. First reads of an absent page are too: a sync that finds nothing.
    case softwareEvent
    /// The tracepoints exceptions:page_fault_user and _kernel, filtered for writes. They come when the fault *begins*:
    /// a scan that is quick enough may look before the page is writable, and nothing tells of it again. x86 only, and
    /// tracefs must be mounted.
    case tracepoint

    /// Bytes of a sample in the ring.
    var recordSize: Int {
        switch self {
        case .softwareEvent: 32
        case .tracepoint: 64
        }
    }
}

/// The events to open on each CPU for a source.
struct FaultKinds {
    var isTracepoint: Bool
    var configs: [UInt64]
    var filter: String?
    /// Offset of the address in the tracepoint's record.
    var addressOffset = 0

    static let tracefs = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]

    init(_ source: FaultSource, tracefs: [String]) throws(KernelError) {
        isTracepoint = source == .tracepoint
        guard source == .tracepoint else {
            configs = [UInt64(CLX_PERF_FAULTS_MINOR), UInt64(CLX_PERF_FAULTS_MAJOR)]
            return
        }
        // An empty folder is what an unmounted tracefs leaves; "events" is in every mounted one.
        guard let root = tracefs.first(where: { access($0 + "/events", F_OK) == 0 }) else {
            let missing = access(tracefs[0], F_OK) == 0 ? "mounted or not readable" : "there"
            let places = tracefs.joined(separator: " or ")
            throw KernelError("looking for the page-fault tracepoint: tracefs is not \(missing) at \(places)", .noEntry)
        }
        configs = []
        for name in ["page_fault_user", "page_fault_kernel"] {
            let folder = "\(root)/events/exceptions/\(name)"
            guard access(folder, F_OK) == 0 else {
                throw KernelError("looking for \(folder): this kernel has no such tracepoint", Errno(Glibc.errno))
            }
            guard let id = UInt64(try SmallFile.text(folder + "/id")) else {
                throw KernelError("reading \(folder)/id", .invalid)
            }
            configs.append(id)
            let format = try SmallFile.text(folder + "/format")
            guard let offset = Self.offset(of: "unsigned long address", in: format),
                Self.offset(of: "unsigned long error_code", in: format) != nil
            else { throw KernelError("reading \(folder)/format: no address and error code as expected", .invalid) }
            addressOffset = offset
        }
        // Writes, to pages that are there (protected) or not (a page never written, or dropped, is a change too).
        filter = "error_code & 2"
    }

    /// "\tfield:unsigned long address;\toffset:8;\tsize:8;\tsigned:0;"
    static func offset(of field: String, in format: String) -> Int? {
        for line in format.split(separator: "\n") {
            let parts = line.split(separator: ";").map { $0.drop { $0 == "\t" || $0 == " " } }
            guard parts.count >= 3, parts[0] == "field:\(field)", parts[2] == "size:8",
                parts[1].hasPrefix("offset:")
            else { continue }
            return Int(parts[1].dropFirst("offset:".count))
        }
        return nil
    }
}

/// Online CPUs, from a list such as "0-3,6".
func onlineCPUs() throws(KernelError) -> [Int32] {
    let path = "/sys/devices/system/cpu/online"
    var cpus: [Int32] = []
    for part in try SmallFile.text(path).split(separator: ",") {
        let ends = part.split(separator: "-").compactMap { Int32($0) }
        guard let first = ends.first, let last = ends.last, first <= last else {
            throw KernelError("reading \(path)", .invalid)
        }
        cpus += first...last
    }
    return cpus
}

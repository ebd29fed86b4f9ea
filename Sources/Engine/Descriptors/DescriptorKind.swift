// What every kind of open file has. Adding a kind adds a file here and a line to the registry.
import CLinux
import Glibc
import LinuxKernel

/// An open file of the process that moves, with a copy of its descriptor in the engine.
struct DescriptorProbe {
    let number: Int32
    /// The same open file description in this process.
    let copy: FileDescriptor
    let status: stat
    /// O_* of the description.
    let flags: Int32
    /// What /proc/PID/fd shows: a path as the container sees it, or the kernel's name.
    let link: String
    let pid: Int32

    var type: mode_t { status.st_mode & S_IFMT }

    init(_ number: Int32, of pid: Int32, _ pidfd: FileDescriptor) throws(KernelError) {
        self.number = number
        self.pid = pid
        copy = FileDescriptor(
            owning: try check(clx_pidfd_getfd(pidfd.number, number), "taking fd \(number) of pid \(pid)"))
        var status = stat()
        try checkC(fstat(copy.number, &status), "looking at fd \(number) of pid \(pid)")
        self.status = status
        flags = try check(clx_fcntl(copy.number, F_GETFL, 0), "reading the flags of fd \(number) of pid \(pid)")
        link = status.st_mode & S_IFMT == S_IFSOCK ? "socket" : try ProcessFiles.link("/proc/\(pid)/fd/\(number)")
    }

    /// A field of fdinfo.
    func info(_ name: String) throws(KernelError) -> [Substring] {
        let text = try SmallFile.text("/proc/self/fdinfo/\(copy.number)")
        return text.split(separator: "\n").filter { $0.hasPrefix(name + ":") }.map { $0.dropFirst(name.utf8.count + 1) }
    }
}

/// A kind of open file.
protocol DescriptorKind {
    /// Is this one of the kind?
    static func matches(_ probe: DescriptorProbe) -> Bool
    /// Why this one cannot be carried, or nil.
    static func obstacle(_ probe: DescriptorProbe) -> String?
    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) throws -> OpenFile.OneOf_Kind
    /// Is this image of the kind?
    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool
    /// Adds the calls that make the file in the destination's process; the index of the one whose result is its number.
    static func create(_ file: OpenFile, _ context: DescriptorRestore, _ batch: inout CallBatch) throws
        -> CallBatch.Argument
    /// Gives the file its state through a copy of its descriptor in the engine; all descriptors have their numbers.
    static func fill(_ file: OpenFile, _ copy: FileDescriptor, _ image: ProcessImage, _ tools: RestoreTools) throws
    /// Adds the calls that need every descriptor in its place.
    static func connect(_ file: OpenFile, number: Int32, _ batch: inout CallBatch)
    /// Does `fill` have anything to do?
    static var needsFilling: Bool { get }
}

extension DescriptorKind {
    static func obstacle(_ probe: DescriptorProbe) -> String? { nil }
    static func fill(_ file: OpenFile, _ copy: FileDescriptor, _ image: ProcessImage, _ tools: RestoreTools) throws {}
    static func connect(_ file: OpenFile, number: Int32, _ batch: inout CallBatch) {}
    static var needsFilling: Bool { false }
}

/// In the order in which they are asked.
let descriptorKinds: [any (DescriptorKind & Sendable).Type] = [
    StreamKind.self, PathFileKind.self, PipeKind.self, EventCounterKind.self, EpollKind.self, TCPListenerKind.self,
    TCPConnectionKind.self, UDPKind.self,
]

/// What capture knows of the container around the process.
public struct DescriptorContext: Sendable {
    /// Files on the host that the runtime gave as standard streams, by their device and inode; the value is the stream
    /// of the destination that takes their place.
    public var streams: [FileIdentity: UInt32] = [:]

    /// Seccomp filters that the runtime installs; nil: unknown, and the program's own go unnoticed.
    public var seccompFilters: Int?

    public struct FileIdentity: Hashable, Sendable {
        public var device, inode: UInt64
        public init(device: UInt64, inode: UInt64) { (self.device, self.inode) = (device, inode) }
        init(_ status: stat) { (device, inode) = (UInt64(status.st_dev), UInt64(status.st_ino)) }
    }
    public init() {}

    /// The file that receives a container's output.
    public mutating func addStream(_ number: UInt32, path: String) throws(KernelError) {
        var status = stat()
        try checkC(stat(path, &status), "looking at \(path)")
        streams[FileIdentity(status)] = number
    }
}

/// What restore knows while it makes descriptors.
struct DescriptorRestore {
    let image: ProcessImage
    /// Where the stub's own standard streams have been put aside.
    let streams: [CallBatch.Argument]
    /// Pipes made so far in this batch: both ends' places.
    var pipes: [UInt64: CallBatch.DataReference]
}

// What every kind of open file has. Adding a kind adds a file here and a line to the registry.
import CLinux
import Glibc
import LinuxKernel

/// An open file of the process that moves, with a copy of its descriptor in the engine.
///
/// While there is a copy, the file stays open whatever the program does: no probe outlives a look at a running process.
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
    /// fdinfo of a file that has no other name, which is what it is known by.
    private let details: [UInt8]?

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
        let details = status.st_mode & S_IFMT == 0 ? try SmallFile.read("/proc/self/fdinfo/\(copy.number)") : nil
        self.details = details
        // A link takes as long as all the rest. By the copy: the number may lead elsewhere by now.
        link =
            if status.st_mode & S_IFMT == S_IFSOCK {
                "socket"
            } else if let details, !Self.fields(EventCounterKind.mark, in: details).isEmpty {
                EventCounterKind.link
            } else {
                try ProcessFiles.link("/proc/self/fd/\(copy.number)")
            }
    }

    /// The values of a field of fdinfo.
    func info(_ name: String) throws(KernelError) -> [Substring] {
        if let details { return Self.fields(name, in: details) }
        return Self.fields(name, in: try SmallFile.read("/proc/self/fdinfo/\(copy.number)"))
    }

    private static func fields(_ name: String, in text: [UInt8]) -> [Substring] {
        let mark = Array("\(name):".utf8)
        return text.split(separator: 10).filter { $0.starts(with: mark) }.map {
            Substring(decoding: $0.dropFirst(mark.count), as: UTF8.self)
        }
    }
}

/// A kind of open file, by the phases of a move. Most kinds have the first three and `create`.
///
/// | at the source | |
/// | --- | --- |
/// | `matches`, `obstacle` | while it runs, and again in the freeze |
/// | `capture` | in the freeze |
/// | `late` | when the container is cut off from its network: `LateCapture` |
///
/// | at the destination | |
/// | --- | --- |
/// | `create`, `fill` | before the last word of the source |
/// | `connect` | after it |
protocol DescriptorKind {
    /// Is this one of the kind?
    static func matches(_ probe: DescriptorProbe) -> Bool
    /// Why this one cannot be carried, or nil.
    static func obstacle(_ probe: DescriptorProbe) -> String?
    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) throws -> OpenFile.OneOf_Kind
    /// Is this image of the kind?
    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool
    /// Can there be such a file? The image may be hostile; what it refers to is checked with the tree.
    static func validate(_ file: OpenFile) throws(EngineError)
    /// The pair that the file belongs to, and whether it is the second of it; nil: it is made alone.
    static func pair(_ file: OpenFile) -> (number: UInt64, isSecond: Bool)?
    /// Adds the call that makes both files of a pair at the two lowest numbers that are free.
    ///
    /// - Returns: where the call writes the numbers.
    static func createPair(_ file: OpenFile, _ batch: inout CallBatch) throws -> CallBatch.DataReference
    /// Adds the calls that make the file in the destination's process: one call that gives a number, which is the
    /// lowest that is free, and its result.
    static func create(_ file: OpenFile, _ batch: inout CallBatch) throws -> CallBatch.Argument
    /// Gives the file its state through a copy of its descriptor in the engine; all descriptors have their numbers.
    ///
    /// - Parameter all: the tree's open files.
    static func fill(_ file: OpenFile, _ copy: FileDescriptor, among all: [OpenFile], _ tools: RestoreTools) throws
    /// Does `fill` have anything to do?
    static func needsFilling(_ file: OpenFile) -> Bool
    /// What captures state of such files that the network may change until the end; nil: they have none.
    static var late: (any LateCapture.Type)? { get }
    /// Puts that state, sent last, into the image. It may be hostile.
    ///
    /// - Returns: false if it is not of the kind.
    static func complete(_ file: inout OpenFile, with late: LateState) throws(EngineError) -> Bool
    /// Brings all files of the kind to life, once everything else of the process is in place.
    static func connect(_ files: [(copy: FileDescriptor, file: OpenFile)], _ tools: RestoreTools) throws(KernelError)
    /// Does `connect` have anything to do?
    static var connects: Bool { get }
    /// O_* that the files have once they are made; others are set then.
    static var flagsOfCreation: Int32 { get }
}

/// State of the open files of one kind that is captured last, when nothing reaches them any more.
protocol LateCapture {
    /// - Parameter files: the kind's, by their index in the tree's files.
    init(_ files: [Int: DescriptorProbe])
    /// Frames for the container go elsewhere.
    ///
    /// - Parameter files: the tree's.
    mutating func begin(_ files: inout [OpenFile]) throws
    /// Nothing reaches the container and nothing leaves it: makes what was captured final.
    mutating func settle(_ files: inout [OpenFile]) throws
    /// What has to be sent, by file.
    func states(_ files: [OpenFile]) -> [UInt32: LateState]
    /// What was sent to them before may still be on its way into them.
    var receivesLate: Bool { get }
    /// Gives the files back to the source's program, each whatever becomes of the others.
    ///
    /// - Throws: the first failure; those files stay as they are.
    mutating func release() throws
}

extension LateCapture {
    func begin(_ files: inout [OpenFile]) throws {}
    var receivesLate: Bool { false }
    mutating func release() throws {}
}

extension DescriptorKind {
    static func obstacle(_ probe: DescriptorProbe) -> String? { nil }
    static func validate(_ file: OpenFile) throws(EngineError) {}
    static func fill(_ file: OpenFile, _ copy: FileDescriptor, among all: [OpenFile], _ tools: RestoreTools) throws {}
    static func needsFilling(_ file: OpenFile) -> Bool { false }
    static var late: (any LateCapture.Type)? { nil }
    static func complete(_ file: inout OpenFile, with late: LateState) throws(EngineError) -> Bool { false }
    static func connect(_ files: [(copy: FileDescriptor, file: OpenFile)], _ tools: RestoreTools) throws(KernelError) {}
    static var connects: Bool { false }
    static var flagsOfCreation: Int32 { 0 }
    static func pair(_ file: OpenFile) -> (number: UInt64, isSecond: Bool)? { nil }
    static func create(_ file: OpenFile, _ batch: inout CallBatch) throws -> CallBatch.Argument {
        throw EngineError.invalidImage("an open file that is not made by a call of its own")
    }
    static func createPair(_ file: OpenFile, _ batch: inout CallBatch) throws -> CallBatch.DataReference {
        throw EngineError.invalidImage("an open file that has no pair")
    }
}

/// In the order in which they are asked, and connected.
let descriptorKinds: [any (DescriptorKind & Sendable).Type] = [
    StreamKind.self, PathFileKind.self, PipeKind.self, EventCounterKind.self, EpollKind.self, TCPListenerKind.self,
    TCPConnectionKind.self, UDPKind.self,
]

/// What capture knows of the container around the process.
public struct DescriptorContext: Sendable {
    /// Files on the host that the runtime gave as standard streams, by their device and inode; the value is the stream
    /// of the destination that takes their place.
    public var streams: [FileIdentity: UInt32] = [:]

    /// Files whose programs remember inode numbers may be moved though the destination gives out its own.
    public var acceptsInodeNumbers = false

    /// Seccomp filters that the runtime installs; nil: unknown, and the program's own go unnoticed.
    public var seccompFilters: Int?
    public init() {}

    /// The file that receives a container's output.
    public mutating func addStream(_ number: UInt32, path: String) throws(KernelError) {
        var status = stat()
        try checkC(stat(path, &status), "looking at \(path)")
        streams[FileIdentity(status)] = number
    }
}

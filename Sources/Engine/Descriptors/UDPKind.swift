// UDP sockets in the descriptor table. They are made with the other files; their queues are captured last, when the
// network delivers nothing more, and put back before it delivers again.
import Glibc
import LinuxKernel

enum UDPKind: DescriptorKind {
    static func matches(_ probe: DescriptorProbe) -> Bool {
        probe.type == S_IFSOCK && (try? UDPSocket.get(probe.copy.number, SOL_SOCKET, SO_PROTOCOL)) == Int32(IPPROTO_UDP)
    }
    static func obstacle(_ probe: DescriptorProbe) -> String? { UDPSocket.obstacle(probe.copy.number, pid: probe.pid) }

    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) throws -> OpenFile.OneOf_Kind {
        .udp(try UDPSocket.capture(probe.copy.number))
    }
    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .udp = kind { true } else { false }
    }
    static func create(_ file: OpenFile, _ context: DescriptorRestore, _ batch: inout CallBatch) -> CallBatch.Argument {
        .result(
            batch.call(
                .socket, .int(file.udp.family), .int(Int32(SOCK_DGRAM.rawValue) | O_CLOEXEC), .int(IPPROTO_UDP),
                doing: "making a UDP socket"))
    }
    static func needsFilling(_ file: OpenFile) -> Bool { true }
    static func fill(_ file: OpenFile, _ copy: FileDescriptor, _ image: ProcessImage, _ tools: RestoreTools) throws {
        try UDPSocket.restore(copy.number, file.udp)
    }

    static var late: (any LateCapture.Type)? { UDPLateCapture.self }
    static func complete(_ file: inout OpenFile, with late: LateState) throws(EngineError) -> Bool {
        guard case .udp = file.kind, case .datagrams(let queue)? = late.kind else { return false }
        for datagram in queue.datagrams { try CheckedImage.check(datagram) }
        file.udp.queue = queue
        return true
    }
    static var connects: Bool { true }
    static func connect(_ files: [(copy: FileDescriptor, file: OpenFile)], _ tools: RestoreTools) throws(KernelError) {
        try UDPSocket.finish(files.map { ($0.copy.number, $0.file.udp) }, tools.datagrams)
    }

    /// The port that a socket shares with others by SO_REUSEPORT, or nil: the kernel chooses between those by their
    /// order.
    static func sharedPort(_ probe: DescriptorProbe) throws(KernelError) -> UInt16? {
        guard try UDPSocket.get(probe.copy.number, SOL_SOCKET, SO_REUSEPORT) != 0 else { return nil }
        let port = UDPAddress(try UDPSocket.address(probe.copy.number, peer: false)).port
        return port == 0 ? nil : port
    }
}

/// The UDP sockets of the container, whose queues are read when the port is silent.
struct UDPLateCapture: LateCapture {
    /// By their index in the image's files.
    private let sockets: [Int: DescriptorProbe]

    init(_ files: [Int: DescriptorProbe]) { sockets = files }

    var receivesLate: Bool { !sockets.isEmpty }

    mutating func settle(_ image: inout ProcessImage) throws {
        try image.editFiles { [sockets] files in
            for (index, probe) in sockets {
                do { files[index].udp.queue = try UDPSocket.captureQueue(probe.copy.number) } catch let error
                    as UDPSocket.Uncarried
                {
                    throw EngineError.obstacles([DescriptorTable.named(probe, error.why)])
                }
            }
        }
    }

    func states(_ image: ProcessImage) -> [UInt32: LateState] {
        var states: [UInt32: LateState] = [:]
        for index in sockets.keys where !image.files[index].udp.queue.datagrams.isEmpty {
            states[UInt32(index), default: LateState()].datagrams = image.files[index].udp.queue
        }
        return states
    }
}

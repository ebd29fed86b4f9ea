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

    /// The port that a socket shares with others by SO_REUSEPORT, or nil: the kernel chooses between those by their
    /// order.
    static func sharedPort(_ probe: DescriptorProbe) throws(KernelError) -> UInt16? {
        guard try UDPSocket.get(probe.copy.number, SOL_SOCKET, SO_REUSEPORT) != 0 else { return nil }
        let port = UDPAddress(try UDPSocket.address(probe.copy.number, peer: false)).port
        return port == 0 ? nil : port
    }
}

extension Capture {
    /// The port is silent: reads the queues of the UDP sockets.
    public mutating func captureQueues() throws {
        try image.editFiles { [sockets] files in
            for index in files.indices {
                guard case .udp = files[index].kind, let probe = sockets[index] else { continue }
                do { files[index].udp.queue = try UDPSocket.captureQueue(probe.copy.number) } catch let error
                    as UDPSocket.Uncarried
                {
                    throw EngineError.obstacles([DescriptorTable.named(probe, error.why)])
                }
            }
        }
    }

    /// Are there UDP sockets?
    public var hasQueues: Bool {
        image.files.contains { if case .udp = $0.kind { true } else { false } }
    }

    /// The queues alone, to send after the rest of the image.
    public var queueImages: [UInt32: DatagramQueue] {
        var queues: [UInt32: DatagramQueue] = [:]
        for (index, file) in image.files.enumerated() {
            guard case .udp(let socket) = file.kind, !socket.queue.datagrams.isEmpty else { continue }
            queues[UInt32(index)] = socket.queue
        }
        return queues
    }
}

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
    static func validate(_ file: OpenFile) throws(EngineError) {
        let socket = file.udp
        try ImageCheck.socketFamily(socket.family)
        if !socket.local.isEmpty { try ImageCheck.socketAddress(socket.local, of: socket.family) }
        if !socket.remote.isEmpty { try ImageCheck.socketAddress(socket.remote, of: socket.family) }
        try ImageCheck.socketOptions(socket.options)
        for datagram in socket.queue.datagrams { try validate(datagram) }
    }
    private static func validate(_ datagram: Datagram) throws(EngineError) {
        try ImageCheck.need(
            datagram.source.count == 16 || datagram.source.count == 28, "a datagram without its sender")
        // What an IP packet of the largest size has room for.
        try ImageCheck.need(datagram.content.count <= 65527, "a datagram of \(datagram.content.count) bytes")
        try ImageCheck.need(datagram.segment <= 65527, "a datagram in pieces of \(datagram.segment) bytes")
        try ImageCheck.need(
            !datagram.hasDestination || [4, 16].contains(datagram.destination.count),
            "a datagram to an address of \(datagram.destination.count) bytes")
    }
    static func create(_ file: OpenFile, _ batch: inout CallBatch) -> CallBatch.Argument {
        .result(
            batch.call(
                .socket, .int(file.udp.family), .int(Int32(SOCK_DGRAM.rawValue) | O_CLOEXEC), .int(IPPROTO_UDP),
                doing: "making a UDP socket"))
    }
    static func needsFilling(_ file: OpenFile) -> Bool { true }
    static func fill(_ file: OpenFile, _ copy: FileDescriptor, among all: [OpenFile], _ tools: RestoreTools) throws {
        try UDPSocket.restore(copy.number, file.udp)
    }

    static var late: (any LateCapture.Type)? { UDPLateCapture.self }
    static func complete(_ file: inout OpenFile, with late: LateState) throws(EngineError) -> Bool {
        guard case .udp = file.kind, case .datagrams(let queue)? = late.kind else { return false }
        for datagram in queue.datagrams { try validate(datagram) }
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
    /// By their index in the tree's files.
    private let sockets: [Int: DescriptorProbe]

    init(_ files: [Int: DescriptorProbe]) { sockets = files }

    var receivesLate: Bool { !sockets.isEmpty }

    mutating func settle(_ files: inout [OpenFile]) throws {
        for (index, probe) in sockets {
            do { files[index].udp.queue = try UDPSocket.captureQueue(probe.copy.number) } catch let error
                as UDPSocket.Uncarried
            {
                throw EngineError.obstacles([DescriptorTable.named(probe, error.why)])
            }
        }
    }

    func states(_ files: [OpenFile]) -> [UInt32: LateState] {
        var states: [UInt32: LateState] = [:]
        for index in sockets.keys where !files[index].udp.queue.datagrams.isEmpty {
            states[UInt32(index), default: LateState()].datagrams = files[index].udp.queue
        }
        return states
    }
}

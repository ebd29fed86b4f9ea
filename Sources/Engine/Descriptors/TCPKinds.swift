// TCP sockets in the descriptor table. Listeners are made with the other files; connections are captured last, when
// the network delivers nothing more, and restored first of all sockets' states.
import Glibc
import LinuxKernel

enum TCPListenerKind: DescriptorKind {
    static func matches(_ probe: DescriptorProbe) -> Bool { TCPKinds.isTCP(probe) && TCPKinds.isListening(probe) }
    static func obstacle(_ probe: DescriptorProbe) -> String? { TCPSocket.obstacle(probe.copy.number) }

    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) throws -> OpenFile.OneOf_Kind {
        .tcpListener(try TCPSocket.captureListener(probe.copy.number))
    }
    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .tcpListener = kind { true } else { false }
    }
    static func validate(_ file: OpenFile) throws(EngineError) {
        let listener = file.tcpListener
        try ImageCheck.socketFamily(listener.family)
        try ImageCheck.socketAddress(listener.address, of: listener.family)
        try ImageCheck.socketOptions(listener.options)
    }
    static func create(_ file: OpenFile, _ batch: inout CallBatch) -> CallBatch.Argument {
        TCPKinds.socket(family: file.tcpListener.family, &batch)
    }
    static func needsFilling(_ file: OpenFile) -> Bool { true }
    static func fill(_ file: OpenFile, _ copy: FileDescriptor, among all: [OpenFile], _ tools: RestoreTools) throws {
        try TCPSocket.restoreListener(copy.number, file.tcpListener)
    }
}

enum TCPConnectionKind: DescriptorKind {
    static func matches(_ probe: DescriptorProbe) -> Bool { TCPKinds.isTCP(probe) && !TCPKinds.isListening(probe) }
    static func obstacle(_ probe: DescriptorProbe) -> String? { TCPSocket.obstacle(probe.copy.number) }

    /// Its place in the image; `TCPLateCapture` fills it.
    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) -> OpenFile.OneOf_Kind {
        var connection = TCPConnection()
        connection.family = TCPKinds.option(probe, SO_DOMAIN)
        return .tcp(connection)
    }
    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .tcp = kind { true } else { false }
    }
    /// The rest of it comes last.
    static func validate(_ file: OpenFile) throws(EngineError) { try ImageCheck.socketFamily(file.tcp.family) }
    private static func validate(_ connection: TCPConnection) throws(EngineError) {
        try ImageCheck.socketAddress(connection.local, of: connection.family)
        try ImageCheck.socketAddress(connection.remote, of: connection.family)
        try ImageCheck.socketOptions(connection.options)
        try ImageCheck.need(connection.window.count == 20, "a TCP window of \(connection.window.count) bytes")
        try ImageCheck.need(
            Int(connection.unsent) <= connection.sendQueue.count, "more unsent than there is to send")
        try ImageCheck.need(
            connection.sendWindowScale <= 14 && connection.receiveWindowScale <= 14, "a TCP window's scale above 14")
    }
    static func create(_ file: OpenFile, _ batch: inout CallBatch) -> CallBatch.Argument {
        TCPKinds.socket(family: file.tcp.family, &batch)
    }

    static var late: (any LateCapture.Type)? { TCPLateCapture.self }
    static func complete(_ file: inout OpenFile, with late: LateState) throws(EngineError) -> Bool {
        guard case .tcp(let place) = file.kind, case .tcp(let connection)? = late.kind else { return false }
        guard connection.family == place.family else {
            throw .invalidImage("a connection of another family than its socket")
        }
        try validate(connection)
        file.tcp = connection
        return true
    }
    static var connects: Bool { true }
    static func connect(_ files: [(copy: FileDescriptor, file: OpenFile)], _ tools: RestoreTools) throws(KernelError) {
        try TCPSocket.restoreConnections(files.map { ($0.copy.number, $0.file.tcp) }, injector: tools.injector)
    }
}

private enum TCPKinds {
    static func isTCP(_ probe: DescriptorProbe) -> Bool {
        guard probe.type == S_IFSOCK else { return false }
        return option(probe, SO_PROTOCOL) == Int32(IPPROTO_TCP)
    }
    static func isListening(_ probe: DescriptorProbe) -> Bool { option(probe, SO_ACCEPTCONN) == 1 }

    static func option(_ probe: DescriptorProbe, _ name: Int32) -> Int32 {
        var value: Int32 = -1, size = socklen_t(4)
        return getsockopt(probe.copy.number, SOL_SOCKET, name, &value, &size) == 0 ? value : -1
    }
    static func socket(family: Int32, _ batch: inout CallBatch) -> CallBatch.Argument {
        .result(
            batch.call(
                .socket, .int(family), .int(Int32(SOCK_STREAM.rawValue) | O_CLOEXEC), .int(IPPROTO_TCP),
                doing: "making a TCP socket"))
    }
}

/// What filling files needs besides them, opened before the freeze.
public struct RestoreTools: Sendable {
    public var injector: TCPInjector?
    public var datagrams: UDPInjector?
    public init(injector: TCPInjector? = nil, datagrams: UDPInjector? = nil) {
        (self.injector, self.datagrams) = (injector, datagrams)
    }
}

/// The connections of the container, under repair.
struct TCPLateCapture: LateCapture {
    struct Repaired {
        let copy: FileDescriptor
        let repair: TCPSocket.Repair
    }
    private let connections: [Int: DescriptorProbe]
    /// By their index in the tree's files.
    var repaired: [Int: Repaired] = [:]

    init(_ files: [Int: DescriptorProbe]) { connections = files }

    /// Puts the connections under repair and captures them; what the port still delivers until it is silent is read by
    /// `settle`.
    mutating func begin(_ files: inout [OpenFile]) throws {
        // All before the first is read: under repair they send each other nothing more.
        for (index, probe) in connections {
            repaired[index] = Repaired(copy: probe.copy, repair: try TCPSocket.beginRepair(probe.copy.number))
        }
        for (index, connection) in repaired {
            files[index].tcp = try TCPSocket.captureConnection(connection.copy.number, connection.repair)
        }
    }

    /// Connections of the container with itself have no port between them: what one sends again reaches the other, and
    /// both have to be seen at the same instant. Once nothing has moved since the pass before, they were.
    mutating func settle(_ files: inout [OpenFile]) throws {
        let ends = Set(repaired.keys.map { UDPAddress(files[$0].tcp.local) })
        let meetsItself = repaired.keys.contains { ends.contains(UDPAddress(files[$0].tcp.remote)) }
        for pass in 0..<20 {
            var moved = false
            for (index, connection) in repaired {
                let has = try TCPSocket.settle(connection.copy.number, connection.repair, &files[index].tcp)
                moved = moved || has
            }
            if !meetsItself || pass > 0 && !moved { return }
        }
        throw KernelError("capturing TCP connections: they do not come to rest", .again)
    }

    func states(_ files: [OpenFile]) -> [UInt32: LateState] {
        var states: [UInt32: LateState] = [:]
        for index in repaired.keys { states[UInt32(index), default: LateState()].tcp = files[index].tcp }
        return states
    }

    mutating func release() throws {
        var failure: (any Error)?
        for (index, connection) in repaired {
            do {
                try TCPSocket.endRepair(connection.copy.number, connection.repair)
                repaired[index] = nil
            } catch { failure = failure ?? error }
        }
        if let failure { throw failure }
    }
}

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
    static func create(_ file: OpenFile, _ context: DescriptorRestore, _ batch: inout CallBatch) -> CallBatch.Argument {
        TCPKinds.socket(family: file.tcpListener.family, &batch)
    }
    static var needsFilling: Bool { true }
    static func fill(_ file: OpenFile, _ copy: FileDescriptor, _ image: ProcessImage, _ tools: RestoreTools) throws {
        try TCPSocket.restoreListener(copy.number, file.tcpListener)
    }
}

enum TCPConnectionKind: DescriptorKind {
    static func matches(_ probe: DescriptorProbe) -> Bool { TCPKinds.isTCP(probe) && !TCPKinds.isListening(probe) }
    static func obstacle(_ probe: DescriptorProbe) -> String? { TCPSocket.obstacle(probe.copy.number) }

    /// Its place in the image; `Capture.captureConnections` fills it.
    static func capture(_ probe: DescriptorProbe, _ context: DescriptorContext) -> OpenFile.OneOf_Kind {
        var connection = TCPConnection()
        connection.family = TCPKinds.option(probe, SO_DOMAIN)
        return .tcp(connection)
    }
    static func made(_ kind: OpenFile.OneOf_Kind) -> Bool {
        if case .tcp = kind { true } else { false }
    }
    static func create(_ file: OpenFile, _ context: DescriptorRestore, _ batch: inout CallBatch) -> CallBatch.Argument {
        TCPKinds.socket(family: file.tcp.family, &batch)
    }
    static var needsFilling: Bool { true }
    static func fill(_ file: OpenFile, _ copy: FileDescriptor, _ image: ProcessImage, _ tools: RestoreTools) throws {
        try TCPSocket.restoreConnection(copy.number, file.tcp, injector: tools.injector)
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

extension Capture {
    /// Numbers of the TCP connections, one a connection.
    public var connections: [Int32] {
        image.files.indices.compactMap { index in
            guard case .tcp = image.files[index].kind else { return nil }
            return image.descriptors.first { Int($0.file) == index }?.number
        }
    }

    /// Puts the connections under repair and captures them; what the port still delivers until it is silent is read by
    /// `settleConnections`.
    public mutating func captureConnections() throws {
        for index in image.files.indices {
            guard case .tcp = image.files[index].kind, let probe = probe(ofFile: index) else { continue }
            let repair = try TCPSocket.beginRepair(probe.copy.number)
            repaired[index] = Repaired(copy: probe.copy, repair: repair)
            image.files[index].tcp = try TCPSocket.captureConnection(probe.copy.number, repair)
        }
    }

    /// The port is silent: makes the images final.
    public mutating func settleConnections() throws {
        for (index, connection) in repaired {
            try TCPSocket.settle(connection.copy.number, connection.repair, &image.files[index].tcp)
        }
    }

    /// The connections alone, to send after the rest of the image.
    public var connectionImages: [UInt32: TCPConnection] {
        Dictionary(uniqueKeysWithValues: repaired.keys.map { (UInt32($0), image.files[$0].tcp) })
    }

    /// Gives the connections back to the source's program.
    public mutating func releaseConnections() throws {
        for connection in repaired.values { try TCPSocket.endRepair(connection.copy.number, connection.repair) }
        repaired = [:]
    }

    func probe(ofFile index: Int) -> DescriptorProbe? {
        guard let number = image.descriptors.first(where: { Int($0.file) == index })?.number else { return nil }
        return probes.first { $0.number == number }
    }
}

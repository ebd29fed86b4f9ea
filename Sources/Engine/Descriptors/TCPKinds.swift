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
    static func needsFilling(_ file: OpenFile) -> Bool { true }
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
    /// Puts the connections under repair and captures them; what the port still delivers until it is silent is read by
    /// `settleConnections`.
    public mutating func captureConnections() throws {
        // All before the first is read: under repair they send each other nothing more.
        for index in image.files.indices {
            guard case .tcp = image.files[index].kind, let probe = sockets[index] else { continue }
            repaired[index] = Repaired(copy: probe.copy, repair: try TCPSocket.beginRepair(probe.copy.number))
        }
        try image.editFiles { [repaired] files in
            for (index, connection) in repaired {
                files[index].tcp = try TCPSocket.captureConnection(connection.copy.number, connection.repair)
            }
        }
    }

    /// The port is silent: makes the images final.
    ///
    /// Connections of the container with itself have no port between them: what one sends again reaches the other, and
    /// both have to be seen at the same instant. Once nothing has moved since the pass before, they were.
    public mutating func settleConnections() throws {
        let ends = Set(repaired.keys.map { UDPAddress(image.files[$0].tcp.local) })
        let meetsItself = repaired.keys.contains { ends.contains(UDPAddress(image.files[$0].tcp.remote)) }
        for pass in 0..<20 {
            let moved = try image.editFiles { [repaired] files in
                var moved = false
                for (index, connection) in repaired {
                    let has = try TCPSocket.settle(connection.copy.number, connection.repair, &files[index].tcp)
                    moved = moved || has
                }
                return moved
            }
            if !meetsItself || pass > 0 && !moved { return }
        }
        throw KernelError("capturing TCP connections: they do not come to rest", .again)
    }

    /// The connections alone, to send after the rest of the image.
    public var connectionImages: [UInt32: TCPConnection] {
        Dictionary(uniqueKeysWithValues: repaired.keys.map { (UInt32($0), image.files[$0].tcp) })
    }

    /// Gives the connections back to the source's program, each whatever becomes of the others.
    ///
    /// - Throws: the first failure; those connections stay under repair.
    public mutating func releaseConnections() throws {
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

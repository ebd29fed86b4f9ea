// TCP state that no descriptor leads to, and so no capture carries: it has to drain before a move.
import LinuxKernel

/// Connections of a namespace that belong to no process.
public struct TCPDrain: Sendable {
    /// Half-open: the client's last acknowledgement would draw a reset from the destination.
    public let handshakes: [TCPSocketEntry]
    /// Established and waiting in a listener's queue for accept(2).
    public let unaccepted: [TCPSocketEntry]
    /// Closed by their process, their last bytes not acknowledged yet: the tail of an answer would be lost.
    public let closing: [TCPSocketEntry]
    /// Sockets with keys for signatures, which cannot be read back from the kernel.
    public let signed: [TCPSocketEntry]

    /// Nothing would be lost.
    public var isEmpty: Bool { handshakes.isEmpty && unaccepted.isEmpty && closing.isEmpty && signed.isEmpty }

    /// What there is, one line each: "10.0.0.2:80 - 10.0.0.9:4711 finWait1: closed by its process, not drained".
    public var reasons: [String] {
        handshakes.map { "\($0): handshake not finished" } + unaccepted.map { "\($0): waits to be accepted" }
            + closing.map { "\($0): closed by its process, not drained" }
            + signed.map { "\($0): signed (TCP MD5), keys cannot be carried" }
    }

    /// Listeners with connections that wait to be accepted, one line each: "10.0.0.2:80 has 3 connections that wait to
    /// be accepted".
    public var waitingListeners: [String] {
        Dictionary(grouping: unaccepted) { "\($0.local.map { "\($0)" } ?? "?"):\($0.localPort)" }
            .sorted { $0.key < $1.key }
            .map {
                "\($0.key) has \($0.value.count) connection\($0.value.count == 1 ? "" : "s") that wait to be accepted"
            }
    }

    /// Looks at a namespace through a `.socketDiagnosis` socket opened in it: one dump for both families, some 145 µs
    /// with the kernel's table of 262,144 buckets.
    ///
    /// Not counted: TIME_WAIT, and FIN_WAIT2 without anything to say. All of what their process said has arrived; the
    /// peer has nothing to lose.
    public static func pending(_ diagnosis: NetlinkSocket) throws(KernelError) -> TCPDrain {
        TCPDrain(try diagnosis.tcpSockets(states: Set(TCPState.allCases).subtracting([.timeWait])))
    }

    /// - Parameter sockets: all of a namespace.
    public init(_ sockets: [TCPSocketEntry]) {
        let orphans = sockets.filter { $0.inode == 0 }
        handshakes = sockets.filter { $0.state == .synReceived || $0.state == .newSynReceived }
        unaccepted = orphans.filter { $0.state == .established || $0.state == .closeWait }
        closing = orphans.filter { $0.state == .finWait1 || $0.state == .closing || $0.state == .lastAck }
        signed = sockets.filter { $0.hasMD5Keys }
    }
    /// The same, for once.
    public static func pending(namespace: NetworkNamespace) throws(KernelError) -> TCPDrain {
        try pending(NetlinkSocket(.socketDiagnosis, in: namespace))
    }
}

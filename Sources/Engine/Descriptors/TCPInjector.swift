// Gives a restored connection the peer's FIN again: repair mode knows no CLOSE_WAIT.
//
// A segment in the peer's name is sent over the namespace's own loopback; it never leaves the namespace.
import CLinux
import Foundation
import LinuxKernel

/// Speaks to a restored connection in its peer's name. Opened before the freeze.
public final class TCPInjector: Sendable {
    private let raw: RawSockets

    public init(in namespace: NetworkNamespace) throws(KernelError) { raw = try RawSockets(in: namespace) }

    /// Sends the FIN that follows the image's receive queue and waits until the connection has taken it.
    func finish(_ fd: Int32, _ image: TCPConnection) throws(KernelError) {
        var (source, destination) = (address(image.remote), address(image.local))
        guard source.host.count == destination.host.count, !source.host.isEmpty else {
            throw KernelError("restoring a TCP connection in CLOSE_WAIT: addresses", .invalid)
        }
        if source.host.count == 16 && source.host.starts(with: Self.mapped)
            && destination.host.starts(with: Self.mapped)
        {
            source.host.removeFirst(12)
            destination.host.removeFirst(12)
        }
        let sequence = image.receiveSequence &+ UInt32(image.receiveQueue.count)
        let window = image.window.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 4, as: UInt32.self) }
        var segment = source.port + destination.port + big(sequence) + big(image.sendSequence)
        segment += [0x50, 0x11] + big(UInt16(clamping: window >> image.sendWindowScale)) + [0, 0, 0, 0]  // FIN, ACK
        let length = big(UInt32(segment.count))
        let sum = Frame.checksum(source.host + destination.host + [0, 0, 0, 6] + length + segment)
        segment.replaceSubrange(16..<18, with: big(sum))

        let packet =
            source.host.count == 4
            // The kernel fills in identification and checksum.
            ? [0x45, 0] + big(UInt16(20 + segment.count)) + [0, 0, 0x40, 0, 64, 6, 0, 0] + source.host
                + destination.host + segment
            : [0x60, 0, 0, 0] + big(UInt16(segment.count)) + [6, 64] + source.host + destination.host + segment
        try raw.send(packet, to: destination.host)
        // The loopback's softirq has run when sendto returns, unless it was put off to its thread.
        for _ in 0..<200 {
            if try TCPSocket.info(fd).state == TCPState.closeWait.rawValue { return }
            usleep(50)
        }
        throw KernelError("restoring a TCP connection in CLOSE_WAIT: FIN not taken", .timedOut)
    }

    private static let mapped: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
    /// Host and port, in network order, of a sockaddr.
    private func address(_ data: Data) -> (host: [UInt8], port: [UInt8]) {
        let bytes = [UInt8](data)
        guard bytes.count >= 16 else { return ([], []) }
        return bytes.count >= 28
            ? ([UInt8](bytes[8..<24]), [UInt8](bytes[2..<4]))
            : ([UInt8](bytes[4..<8]), [UInt8](bytes[2..<4]))
    }
}

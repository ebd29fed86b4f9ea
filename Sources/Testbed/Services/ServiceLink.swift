// One client's way to a service: a TCP connection or a datagram socket.
import Glibc
import LinuxKernel

/// Sends and takes whole messages without ever waiting. To be used by one thread at a time.
final class ServiceLink {
    let transport: Transport
    let descriptor: FileDescriptor
    /// Why the connection ended; nil: it stands, or is none.
    private(set) var closed: String?
    /// What the socket did not take yet.
    private var output: [UInt8] = []
    private var input: [UInt8] = []
    private var chunk = [UInt8](repeating: 0, count: 1 << 16)

    init(_ endpoint: ServiceEndpoint, _ transport: Transport) throws {
        self.transport = transport
        descriptor = try endpoint.open(transport)
    }

    var wantsToSend: Bool { !output.isEmpty && closed == nil }
    private var isStream: Bool { transport == .tcp }

    /// Sends a message, now or when the socket takes it. A datagram that it does not take is lost.
    func send(_ message: ServiceMessage) {
        if isStream {
            output += message.bytes
            flush()
        } else {
            _ = Glibc.send(
                descriptor.number, message.bytes, message.bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
        }
    }

    /// Sends on what did not fit.
    func flush() {
        while wantsToSend {
            let n = Glibc.send(descriptor.number, output, output.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            if n >= 0 {
                output.removeFirst(n)
            } else if errno == EAGAIN {
                return
            } else if errno != EINTR {
                closed = "sending: \(Errno(errno))"
            }
        }
    }

    /// Takes what has arrived and hands on every message that is whole.
    func receive(_ take: (UnsafeRawBufferPointer) -> Void) {
        while closed == nil {
            let n = recv(descriptor.number, &chunk, chunk.count, Int32(MSG_DONTWAIT))
            if n < 0 {
                if errno == EINTR { continue }
                // An ICMP error on a datagram socket tells of datagrams that are lost, which shows anyway.
                if isStream && errno != EAGAIN { closed = "receiving: \(Errno(errno))" }
                return
            }
            if isStream && n == 0 {
                closed = "the service closed the connection"
                return
            }
            if isStream {
                input += chunk[..<n]
                handOn(take)
            } else {
                chunk.withUnsafeBytes { whole in
                    guard n >= ServiceMessage.headerSize, whole.integer(0, as: UInt32.self) == n else { return }
                    take(UnsafeRawBufferPointer(rebasing: whole[..<n]))
                }
            }
            if isStream && n < chunk.count { return }
        }
    }

    private func handOn(_ take: (UnsafeRawBufferPointer) -> Void) {
        var at = 0
        input.withUnsafeBytes { bytes in
            while bytes.count - at >= ServiceMessage.headerSize {
                let length = Int(bytes.integer(at, as: UInt32.self))
                guard length >= ServiceMessage.headerSize else {
                    closed = "the service sent a message of \(length) bytes"
                    return
                }
                guard bytes.count - at >= length else { return }
                take(UnsafeRawBufferPointer(rebasing: bytes[at..<at + length]))
                at += length
            }
        }
        input.removeFirst(at)
    }
}

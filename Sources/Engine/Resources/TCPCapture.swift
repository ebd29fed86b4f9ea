// From a live TCP socket to its image.
import CLinux
import Foundation
import LinuxKernel

extension TCPSocket {
    /// Captures a listening socket. It stays as it is.
    public static func captureListener(_ fd: Int32) throws(KernelError) -> TCPListener {
        let info = try info(fd)
        guard info.state == TCPState.listen.rawValue else {
            throw KernelError("capturing descriptor \(fd): not a listening socket", .invalid)
        }
        var image = TCPListener()
        image.family = try get(fd, SOL_SOCKET, SO_DOMAIN)
        image.address = try address(fd, peer: false)
        image.backlog = info.sacked
        image.options = try captureOptions(
            fd, family: image.family, listener: true, reuseAddress: try get(fd, SOL_SOCKET, SO_REUSEADDR) != 0)
        return image
    }

    /// Captures a connection under repair; `reuseAddress` is what `beginRepair` returned.
    ///
    /// The program is stopped, but until the port is silent the peer's segments still come in and are acknowledged: what
    /// moved while it was read is read again. Whoever silences the port afterwards compares `position` once more.
    public static func captureConnection(_ fd: Int32, reuseAddress: Bool) throws(KernelError) -> TCPConnection {
        var image = TCPConnection()
        image.family = try get(fd, SOL_SOCKET, SO_DOMAIN)
        image.local = try address(fd, peer: false)
        image.remote = try address(fd, peer: true)
        image.options = try captureOptions(fd, family: image.family, listener: false, reuseAddress: reuseAddress)
        try recapture(fd, &image)
        return image
    }

    /// Reads again what moves: state, sequence numbers, queues, windows.
    public static func recapture(_ fd: Int32, _ image: inout TCPConnection) throws(KernelError) {
        for _ in 0..<8 {
            let before = try position(fd)
            let info = try info(fd)
            guard info.state == TCPState.established.rawValue || info.state == TCPState.closeWait.rawValue else {
                throw KernelError("capturing descriptor \(fd): TCP state \(info.state) is not carried", .invalid)
            }
            let closed = info.state == TCPState.closeWait.rawValue
            image.state = UInt32(info.state)
            image.readShutdown = !closed && poll(fd) & 0x2000 != 0  // POLLRDHUP
            image.sendSequence = before.sendSequence &- before.sendQueue
            image.receiveSequence = before.receiveSequence &- before.receiveQueue &- (closed ? 1 : 0)
            image.unsent = before.unsent
            image.receiveQueue = try peek(fd, receiveQueueNumber, before.receiveQueue)
            image.sendQueue = try peek(fd, sendQueueNumber, before.sendQueue)
            try set(fd, TCP_REPAIR_QUEUE, noQueueNumber)
            image.mssClamp = UInt32(bitPattern: try get(fd, Int32(IPPROTO_TCP), TCP_MAXSEG))
            image.timestamps = info.options & 1 != 0
            image.sack = info.options & 2 != 0
            image.windowScaling = info.options & 4 != 0
            image.sendWindowScale = UInt32(info.sendScale)
            image.receiveWindowScale = UInt32(info.receiveScale)
            image.timestamp = UInt32(bitPattern: try get(fd, Int32(IPPROTO_TCP), TCP_TIMESTAMP))
            var window: (UInt32, UInt32, UInt32, UInt32, UInt32) = (0, 0, 0, 0, 0), size = UInt32(20)
            try check(
                clx_getsockopt(fd, Int32(IPPROTO_TCP), TCP_REPAIR_WINDOW, &window, &size),
                "reading the windows of descriptor \(fd)")
            image.window = withUnsafeBytes(of: window) { Data($0) }
            if try position(fd) == before { return }
        }
        throw KernelError("capturing descriptor \(fd): the connection does not come to rest", .again)
    }

    /// The content of a queue. The send queue can only be read whole, so both are.
    private static func peek(_ fd: Int32, _ queue: Int32, _ count: UInt32) throws(KernelError) -> Data {
        if count == 0 { return Data() }
        let size = Int(count)
        guard let memory = malloc(size) else { throw KernelError("reading a queue of \(size) bytes", Errno(ENOMEM)) }
        try set(fd, TCP_REPAIR_QUEUE, queue)
        let received = clx_recv(fd, memory, size, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
        if queue == sendQueueNumber { try set(fd, TCP_REPAIR_QUEUE, noQueueNumber) }
        // SAFETY: `memory` is a fresh block of `size` bytes that nobody else knows; Data frees it.
        let data = Data(bytesNoCopy: memory, count: size, deallocator: .free)
        try check(received, "reading a queue of descriptor \(fd)")
        // Shorter: acknowledged or read meanwhile; the positions will differ and it is read again.
        return received == size ? data : data.prefix(Int(received))
    }
}

// From an image to a live TCP socket.
import CLinux
import Foundation
import LinuxKernel

extension TCPSocket {
    /// Makes a fresh socket (of the image's family, in the container's namespace) listen. Before any connection of the
    /// same port: their forced reuse of the address does not extend to a listener that comes later.
    public static func restoreListener(_ fd: Int32, _ image: TCPListener) throws(KernelError) {
        try set(fd, SOL_SOCKET, SO_REUSEADDR, image.options.reuseAddress ? 1 : 0)
        try set(fd, SOL_SOCKET, SO_REUSEPORT, image.options.reusePort ? 1 : 0)
        try forceBuffers(fd, receive: image.options.receiveBuffer, send: image.options.sendBuffer)
        try set(fd, SOL_SOCKET, SO_BUF_LOCK, Int32(bitPattern: image.options.bufferLock))
        try restoreOptions(fd, image.options, .beforeBind)
        try apply(image.address, "binding a listener") { bind(fd, $0, $1) }
        try restoreOptions(fd, image.options, .afterConnect)
        try checkC(listen(fd, Int32(clamping: image.backlog)), "listening on descriptor \(fd)")
    }

    /// Turns fresh sockets (of the images' families, in the container's namespace) into the captured connections.
    ///
    /// The peer of a connection may be another of them. Leaving repair mode sends a window probe, and the kernel
    /// answers one to a peer that is not there with a reset. So all are put in place before the first one leaves repair
    /// mode, and all have left it before the first one sends data. `injector` is needed for connections in CLOSE_WAIT
    /// only.
    public static func restoreConnections(
        _ connections: [(fd: Int32, image: TCPConnection)], injector: TCPInjector? = nil
    ) throws(KernelError) {
        if injector == nil && connections.contains(where: { $0.image.state == UInt32(TCPState.closeWait.rawValue) }) {
            throw KernelError("restoring a TCP connection in CLOSE_WAIT: no injector", .invalid)
        }
        for (fd, image) in connections { try place(fd, image) }
        for (fd, image) in connections {
            try set(fd, TCP_REPAIR, TCP_REPAIR_OFF)
            // Only now: repair forces the reuse of the address, and leaving it resets the option.
            try set(fd, SOL_SOCKET, SO_REUSEADDR, image.options.reuseAddress ? 1 : 0)
        }
        for (fd, image) in connections { try resume(fd, image, injector) }
    }

    /// Gives a connection its addresses, its queues and its windows. It stays under repair and sends nothing.
    private static func place(_ fd: Int32, _ image: TCPConnection) throws(KernelError) {
        let options = image.options
        let state = TCPState(rawValue: UInt8(truncatingIfNeeded: image.state))
        guard state == .established || state == .closeWait, Int(image.unsent) <= image.sendQueue.count,
            image.window.count == 20
        else { throw KernelError("restoring a TCP connection: not a state that can be", .invalid) }
        // The buffers first: connect takes the window's limit from them.
        try forceBuffers(fd, receive: options.receiveBuffer, send: options.sendBuffer)
        try set(fd, TCP_REPAIR, TCP_REPAIR_ON)
        try restoreOptions(fd, options, .beforeBind)
        try set(fd, SOL_SOCKET, SO_REUSEPORT, options.reusePort ? 1 : 0)
        try setSequence(fd, receiveQueueNumber, image.receiveSequence)
        try setSequence(fd, sendQueueNumber, image.sendSequence)
        try apply(image.local, "binding a TCP connection") { bind(fd, $0, $1) }
        try apply(image.remote, "connecting under repair") { connect(fd, $0, $1) }
        try setNegotiated(fd, image)
        try restoreOptions(fd, options, .afterConnect)

        // The queues' bookkeeping may be larger here than it was there: room for twice the data while they are filled.
        // The room to send stays until the data that was not sent is in, the room to receive would be offered to the
        // peer.
        let receive = UInt32(clamping: max(UInt64(options.receiveBuffer), 2 * UInt64(image.receiveQueue.count) + 65536))
        let send = UInt32(clamping: max(UInt64(options.sendBuffer), 4 * UInt64(image.sendQueue.count) + 65536))
        try forceBuffers(fd, receive: receive, send: send)
        try fill(fd, receiveQueueNumber, image.receiveQueue[...])
        let sent = image.sendQueue.count - Int(image.unsent)
        try fill(fd, sendQueueNumber, image.sendQueue.prefix(sent))
        try forceBuffers(fd, receive: options.receiveBuffer, send: send)
        try set(fd, TCP_REPAIR_QUEUE, noQueueNumber)
        try setWindow(fd, image)
        try verify(fd, image, sent: UInt32(sent))
    }

    /// Sends what was not sent yet; the connection lives.
    private static func resume(_ fd: Int32, _ image: TCPConnection, _ injector: TCPInjector?) throws(KernelError) {
        let options = image.options
        if image.unsent > 0 { try send(fd, image.sendQueue.suffix(Int(image.unsent))) }
        try forceBuffers(fd, receive: options.receiveBuffer, send: options.sendBuffer)
        try set(fd, SOL_SOCKET, SO_BUF_LOCK, Int32(bitPattern: options.bufferLock))
        if image.readShutdown { try checkC(shutdown(fd, Int32(SHUT_RD)), "shutting down descriptor \(fd)") }
        if image.state == UInt32(TCPState.closeWait.rawValue), let injector { try injector.finish(fd, image) }
    }

    /// Binds and connects a fresh socket under repair and closes it, before the freeze: the first of a namespace costs
    /// a few hundred microseconds more than all others. Sends nothing. `image` may be of any connection or listener
    /// that is to come.
    public static func rehearse(_ fd: Int32, local: Data) throws(KernelError) {
        defer { close(fd) }
        try forceBuffers(fd, receive: 131_072, send: 131_072)
        try set(fd, TCP_REPAIR, TCP_REPAIR_ON)
        try setSequence(fd, receiveQueueNumber, 1)
        try setSequence(fd, sendQueueNumber, 1)
        try apply(local, "rehearsing a bind") { bind(fd, $0, $1) }
        var remote = local  // itself, at the discard port
        remote.replaceSubrange(2..<4, with: [0, 9])
        try apply(remote, "rehearsing a connection") { connect(fd, $0, $1) }
        for queue in [receiveQueueNumber, sendQueueNumber] { try fill(fd, queue, Data(count: 64)) }
    }

    private static func setSequence(_ fd: Int32, _ queue: Int32, _ value: UInt32) throws(KernelError) {
        try set(fd, TCP_REPAIR_QUEUE, queue)
        try set(fd, TCP_QUEUE_SEQ, Int32(bitPattern: value))
    }

    /// What the two ends agreed on in their handshake, and the clock of the timestamps.
    private static func setNegotiated(_ fd: Int32, _ image: TCPConnection) throws(KernelError) {
        // struct tcp_repair_opt: code and value, 32 bits each.
        var list: [UInt32] = [2, image.mssClamp]  // TCPOPT_MAXSEG
        if image.windowScaling {
            list += [3, image.sendWindowScale & 0xff | (image.receiveWindowScale & 0xff) << 16]  // TCPOPT_WINDOW
        }
        if image.sack { list += [4, 0] }  // TCPOPT_SACK_PERMITTED
        if image.timestamps { list += [8, 0] }  // TCPOPT_TIMESTAMP
        try check(
            clx_setsockopt(fd, Int32(IPPROTO_TCP), TCP_REPAIR_OPTIONS, list, UInt32(list.count * 4)),
            "restoring negotiated options of descriptor \(fd)")
        if image.timestamps { try set(fd, TCP_TIMESTAMP, Int32(bitPattern: image.timestamp)) }
    }

    /// Writes data into a queue under repair: it counts as received, or as sent.
    private static func fill(_ fd: Int32, _ queue: Int32, _ data: Data) throws(KernelError) {
        if data.isEmpty { return }
        try set(fd, TCP_REPAIR_QUEUE, queue)
        try send(fd, data)
    }
    /// In pieces of 64 KiB, which the kernel keeps in whole pages.
    private static func send(_ fd: Int32, _ data: Data) throws(KernelError) {
        let failure: KernelError? = data.withUnsafeBytes { buffer in
            var done = 0
            while done < buffer.count {
                let count = min(65536, buffer.count - done)
                // SAFETY: done + count <= buffer.count.
                let result = clx_send(fd, buffer.baseAddress! + done, count, Int32(MSG_DONTWAIT))
                if result < 0 {
                    return KernelError(
                        "filling a queue of descriptor \(fd) (\(done) of \(buffer.count) bytes)", Errno(Int32(-result)))
                }
                done += result
            }
            return nil
        }
        if let failure { throw failure }
    }

    /// TCP_REPAIR_WINDOW: snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup.
    private static func setWindow(_ fd: Int32, _ image: TCPConnection) throws(KernelError) {
        var words = image.window.withUnsafeBytes { bytes in
            (0..<5).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self) }
        }
        let received = image.receiveSequence &+ UInt32(image.receiveQueue.count)
        if Int32(bitPattern: words[4] &- received) > 0 {
            // The peer's FIN, which comes back later, had been acknowledged already.
            words[3] &+= words[4] &- received
            words[4] = received
        }
        try check(
            clx_setsockopt(fd, Int32(IPPROTO_TCP), TCP_REPAIR_WINDOW, words, 20),
            "restoring the windows of descriptor \(fd)")
    }

    /// The connection stands where the image says, before it says a word.
    private static func verify(_ fd: Int32, _ image: TCPConnection, sent: UInt32) throws(KernelError) {
        let expected = Position(
            sendSequence: image.sendSequence &+ sent,
            receiveSequence: image.receiveSequence &+ UInt32(image.receiveQueue.count), sendQueue: sent,
            receiveQueue: UInt32(image.receiveQueue.count))
        let found = try position(fd)
        let unsent = try info(fd).unsent
        if found != expected || unsent != 0 {
            throw KernelError("restoring descriptor \(fd): \(found) instead of \(expected)", Errno(EIO))
        }
    }
}

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

    /// Captures a connection under repair; `repair` is what `beginRepair` returned.
    ///
    /// The program is stopped, but until the port is silent the peer's segments still come in and are acknowledged:
    /// what moved while it was read is read again. After the port is silent, `settle` makes the image final.
    public static func captureConnection(_ fd: Int32, _ repair: Repair) throws(KernelError) -> TCPConnection {
        var image = TCPConnection()
        image.family = try get(fd, SOL_SOCKET, SO_DOMAIN)
        image.local = try address(fd, peer: false)
        image.remote = try address(fd, peer: true)
        image.options = try captureOptions(fd, family: image.family, listener: false, reuseAddress: repair.reuseAddress)
        try recapture(fd, repair, &image)
        return image
    }

    /// Reads again what moves: state, sequence numbers, queues, windows.
    static func recapture(_ fd: Int32, _ repair: Repair, _ image: inout TCPConnection) throws(KernelError) {
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
            image.receiveQueue = try peek(fd, receiveQueueNumber, before.receiveQueue)
            image.sendQueue = try peek(fd, sendQueueNumber, before.sendQueue)
            image.mssClamp = UInt32(bitPattern: try get(fd, Int32(IPPROTO_TCP), TCP_MAXSEG))
            image.timestamps = info.options & 1 != 0
            image.sack = info.options & 2 != 0
            image.windowScaling = info.options & 4 != 0
            image.sendWindowScale = UInt32(info.sendScale)
            image.receiveWindowScale = UInt32(info.receiveScale)
            try readAdvertised(fd, info, &image)
            if try position(fd) == before {
                image.unsent = try unsent(info, repair, image)
                return
            }
        }
        throw KernelError("capturing descriptor \(fd): the connection does not come to rest", .again)
    }

    /// Makes an image final once nothing can leave or enter any more: reads what moved since the capture. Some 2 µs.
    ///
    /// Even where no byte moved, an acknowledgement may have left in between: with a later timestamp, so that the peer
    /// would drop what the destination says first (PAWS) and wait a whole second for it; and with a wider window.
    /// - Returns: whether data had moved and the queues were read again.
    @discardableResult
    public static func settle(_ fd: Int32, _ repair: Repair, _ image: inout TCPConnection) throws(KernelError) -> Bool {
        let info = try info(fd)
        let state = info.state
        let fin: UInt32 = state == TCPState.closeWait.rawValue ? 1 : 0
        let expected = Position(
            sendSequence: image.sendSequence &+ UInt32(image.sendQueue.count),
            receiveSequence: image.receiveSequence &+ UInt32(image.receiveQueue.count) &+ fin,
            sendQueue: UInt32(image.sendQueue.count), receiveQueue: UInt32(image.receiveQueue.count))
        let found = try position(fd)
        let moved = UInt32(state) != image.state || found != expected
        if moved { try recapture(fd, repair, &image) } else { try readAdvertised(fd, info, &image) }
        // As it was when this began: whatever the kernel sent since then went nowhere.
        image.unsent = try unsent(info, repair, image)
        return moved
    }

    /// Bytes that truly never left, see `beginRepair`. What an end in the same container has acknowledged since `info`
    /// was read has left.
    private static func unsent(_ info: Info, _ repair: Repair, _ image: TCPConnection) throws(KernelError) -> UInt32 {
        let left = Int64(repair.unsent) - Int64(bitPattern: info.sent &- repair.sent)
        guard left >= 0 else {
            throw KernelError(
                "capturing a TCP connection: \(left) of \(image.sendQueue.count) bytes unsent", Errno(EIO))
        }
        return UInt32(min(left, Int64(image.sendQueue.count)))
    }

    /// The clock of the timestamps and the windows: they change with every segment that leaves.
    ///
    /// With pacing the kernel stamps a segment with the time at which the pace allows it, and an acknowledgement sent
    /// meanwhile with the same time, ahead of the clock by up to a burst (49 ms seen with BBR on a fast link). What the
    /// destination says first would be older for the peer, dropped (PAWS), and repeated after the first timeout of a
    /// whole second. The kernel tells nobody how far ahead it stamped, so the clock is put ahead by more than that; it
    /// costs nothing but a first estimate of the round-trip time that is too long by as much.
    private static func readAdvertised(_ fd: Int32, _ info: Info, _ image: inout TCPConnection) throws(KernelError) {
        let clock = UInt32(bitPattern: try get(fd, Int32(IPPROTO_TCP), TCP_TIMESTAMP))
        let burst = UInt32(clamping: 131_072_000 / max(1, info.pacingRate))  // ms for twice 64 KiB
        let ahead = image.options.isPaced ? min(1000, max(250, burst)) : 2
        // The lowest bit tells the unit: 1 for microseconds.
        image.timestamp = clock &+ (clock & 1 == 1 ? ahead * 1000 : (ahead + 1) & ~1)
        var window: (UInt32, UInt32, UInt32, UInt32, UInt32) = (0, 0, 0, 0, 0), size = UInt32(20)
        try check(
            clx_getsockopt(fd, Int32(IPPROTO_TCP), TCP_REPAIR_WINDOW, &window, &size),
            "reading the windows of descriptor \(fd)")
        image.window = withUnsafeBytes(of: window) { Data($0) }
    }

    /// The content of a queue. The send queue can only be read whole, so both are.
    private static func peek(_ fd: Int32, _ queue: Int32, _ count: UInt32) throws(KernelError) -> Data {
        if count == 0 { return Data() }
        let size = Int(count)
        guard let memory = malloc(size) else { throw KernelError("reading a queue of \(size) bytes", Errno(ENOMEM)) }
        try set(fd, TCP_REPAIR_QUEUE, queue)
        let received = clx_recv(fd, memory, size, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
        if queue != sendQueueNumber { try set(fd, TCP_REPAIR_QUEUE, sendQueueNumber) }
        // SAFETY: `memory` is a fresh block of `size` bytes that nobody else knows; Data frees it.
        let data = Data(bytesNoCopy: memory, count: size, deallocator: .free)
        try check(received, "reading a queue of descriptor \(fd)")
        // Shorter: acknowledged or read meanwhile; the positions will differ and it is read again.
        return received == size ? data : data.prefix(Int(received))
    }
}
